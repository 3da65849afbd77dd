// Training by ranks that other programs have started.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::HasSubstr;

class Launchers : public CommandTest {
 protected:
  Launchers() : CommandTest(few_steps("leaves = 4\nepochs = 2")) {
    // Files by which ranks find each other lie here alone.
    std::filesystem::permissions(folder_, std::filesystem::perms::owner_all);
    setenv("XDG_RUNTIME_DIR", folder_.c_str(), 1);
    setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
  }
  ~Launchers() override {
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("XDG_CACHE_HOME");
  }

  void expect_same_bits(const Outcome& outcome, const std::string& job) const {
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(job + ", shm; leaves 4: "));
    const Outcome alone = run("train small.toml --json --quiet --set output.dir=alone");
    EXPECT_EQ(outcome.last_line()["weights_hash"], alone.last_line()["weights_hash"]);
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      EXPECT_FALSE(entry.path().filename().string().starts_with("concord-")) << entry.path();
    }
  }

  // Four ranks as processes of a shell, with these variables; $rank is their number.
  Outcome run_ranks(const std::string& variables) const {
    return run_script("for rank in 3 1 0 2; do\n  " + variables +
                      " \"$concord\" train small.toml --json &\ndone\nwait\n");
  }
};

TEST_F(Launchers, OpenMpiIsUnderstood) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "Open MPI's mpirun is not installed";
  }
  const std::string mpirun =
      "mpirun --allow-run-as-root --oversubscribe -np 4 '" CONCORD_COMMAND "' ";
  expect_same_bits(run_script(mpirun + "train small.toml --json"), "4 ranks by Open MPI on 1 host");
  EXPECT_THAT(run_script(mpirun + "train small.toml --ranks 2").err,
              HasSubstr("Open MPI has started this process as rank "));
}

// Its own file for MPI lies beside it, wherever the word "concord" leads.
TEST_F(Launchers, ACommandOnThePathFindsWhatItLoadsForMpi) {
  if (std::system("mpirun --version >/dev/null 2>&1") != 0) {
    GTEST_SKIP() << "Open MPI's mpirun is not installed";
  }
  const Outcome outcome = run_script(
      "PATH=\"$(dirname '" CONCORD_COMMAND
      "'):$PATH\" mpirun --allow-run-as-root --oversubscribe -np 2 concord train small.toml "
      "--set parallel.transport=mpi");
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("on 1 host, mpi; "));
}

TEST_F(Launchers, SlurmIsUnderstood) {
  expect_same_bits(run_ranks("SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=4 "
                             "SLURM_STEP_NUM_NODES=1 SLURM_STEP_NODELIST=node1 SLURM_PROCID=$rank "
                             "SLURM_LOCALID=$rank"),
                   "4 ranks by Slurm on 1 host");
}

TEST_F(Launchers, SlurmOfSeveralHostsMeetsInAFolderThatTheyShare) {
  expect_same_bits(run_ranks("SLURM_JOB_ID=7 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 "
                             "SLURM_STEP_NUM_NODES=2 SLURM_PROCID=$rank"),
                   "4 ranks by Slurm on 1 host");
}

TEST_F(Launchers, MpichIsUnderstood) {
  expect_same_bits(run_ranks("MPI_LOCALNRANKS=4 PMI_SIZE=4 PMI_RANK=$rank"),
                   "4 ranks by MPICH on 1 host");
}

TEST_F(Launchers, TorchrunIsUnderstoodWithAndWithoutASecret) {
  const std::string variables = "MASTER_ADDR=127.0.0.1 MASTER_PORT=29533 WORLD_SIZE=4 RANK=$rank";
  expect_same_bits(run_ranks(variables), "4 ranks by torchrun on 1 host");
  std::filesystem::remove_all(folder_ / "run");
  std::filesystem::remove_all(folder_ / "alone");
  expect_same_bits(run_ranks(variables + " CONCORD_SECRET=" + std::string(64, 'a')),
                   "4 ranks by torchrun on 1 host");
}

TEST_F(Launchers, RanksOfDifferentTransportsAreRefusedAtOnce) {
  const Outcome outcome = run_script(
      "export MASTER_ADDR=127.0.0.1 MASTER_PORT=29534 WORLD_SIZE=2\n"
      "RANK=1 \"$concord\" train small.toml --set parallel.transport=gloo &\n"
      "RANK=0 \"$concord\" train small.toml; code=$?; wait; exit $code\n");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("rank 0 has transport shm and algorithm auto, and rank 1 has "
                                     "transport gloo and algorithm auto"));
}

TEST_F(Launchers, WhoDoesNotComeIsNamed) {
  // Ranks in the background, and one before it.
  const auto run_some = [&](const std::vector<int>& behind, int first) {
    const auto rank = [](int number) {
      return fmt::format(
          "SLURM_JOB_ID=8 SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=4 "
          "SLURM_STEP_NUM_NODES=1 SLURM_PROCID={} \"$concord\" train small.toml "
          "--set parallel.timeout_seconds=0.5",
          number);
    };
    std::string script;
    for (const int number : behind) script += rank(number) + " &\n";
    return run_script(script + rank(first) + "; code=$?; wait; exit $code\n");
  };
  const Outcome others = run_some({1}, 0);
  EXPECT_EQ(others.code, 1);
  EXPECT_THAT(others.err, HasSubstr("ranks 2-3 of 4 have not come within 0.5 s"));
  const Outcome first = run_some({}, 2);
  EXPECT_EQ(first.code, 1);
  EXPECT_THAT(first.err, HasSubstr("rank 0 of 4 was not found within 0.5 s"));
  EXPECT_THAT(run_some({1, 1}, 0).err,
              HasSubstr("another process says too that it is rank 1 of 4"));
}

}  // namespace
}  // namespace concord::cli
