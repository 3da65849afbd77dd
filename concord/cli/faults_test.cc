// Whole trainings over a network that is not well (tests/faults.cc).
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "concord/base/clock.h"
#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;

class Faults : public CommandTest {
 protected:
  Faults() : CommandTest(few_steps("leaves = 4\nepochs = 3")) {}
  ~Faults() override {
    unsetenv("LD_PRELOAD");
    unsetenv("CONCORD_FAULTS");
    unsetenv("CONCORD_FAULTS_DONE");
  }
  void SetUp() override {
    if (std::string(CONCORD_FAULTS).empty()) {
      GTEST_SKIP() << "a sanitizer lets nothing stand before the system's calls but itself";
    }
  }

  void begin(const char* fault) const {
    setenv("LD_PRELOAD", CONCORD_FAULTS, 1);
    setenv("CONCORD_FAULTS", fault, 1);
    setenv("CONCORD_FAULTS_DONE", (folder_ / "faults").c_str(), 1);
  }
  // Since they were asked last, over all processes.
  int faults() const {
    std::ifstream lines(folder_ / "faults");
    int all = 0;
    for (int count = 0; lines >> count;) all += count;
    std::filesystem::remove(folder_ / "faults");
    return all;
  }

  std::string hash_alone() const {
    const Outcome alone = run("train small.toml --json --quiet --set output.dir=alone");
    return alone.last_line()["weights_hash"];
  }
  void expect_same_bits(const Outcome& outcome, const std::string& hash) const {
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.last_line()["weights_hash"], hash);
    EXPECT_GT(faults(), 20);
    std::filesystem::remove_all(folder_ / "run");
  }
};

TEST_F(Faults, DelaysAndShortWritesChangeNothing) {
  const std::string hash = hash_alone();
  const std::pair<const char*, std::vector<const char*>> cases[] = {
      {"delay",
       {"transport=shm", "algorithm=chain --set parallel.transport=shm", "transport=gloo",
        "algorithm=chain --set parallel.transport=gloo"}},
      // Through shared memory nothing is written.
      {"short", {"transport=gloo", "algorithm=chain --set parallel.transport=gloo"}}};
  for (const auto& [fault, ways] : cases) {
    begin(fault);
    for (const char* how : ways) {
      SCOPED_TRACE(fmt::format("{}, {}", fault, how));
      expect_same_bits(run(fmt::format("train small.toml --ranks 3 --json --set parallel.{}", how)),
                       hash);
    }
  }
}

// The connections of MPI alone, between certain ports: what starts the processes takes a short
// write for all.
class FaultsOfMpi : public Faults {
 protected:
  void SetUp() override {
    Faults::SetUp();
    if (!IsSkipped() && std::system("mpirun --version >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "Open MPI's mpirun is not installed";
    }
  }
  Outcome train(const std::string& fault, const std::string& settings) {
    return run_script(fmt::format(
        "mpirun --allow-run-as-root --oversubscribe --mca btl tcp,self "
        "--mca btl_tcp_port_min_v4 20000 --mca btl_tcp_port_range_v4 100 -np 3 "
        "env LD_PRELOAD='{}' CONCORD_FAULTS={} CONCORD_FAULTS_PORT=20000 CONCORD_FAULTS_DONE='{}' "
        "\"$concord\" train small.toml --json --set parallel.transport=mpi {}",
        CONCORD_FAULTS, fault, (folder_ / "faults").string(), settings));
  }
};

TEST_F(FaultsOfMpi, DelaysAndShortWritesChangeNothing) {
  const std::string hash = hash_alone();
  for (const char* fault : {"delay", "short"}) {
    SCOPED_TRACE(fault);
    expect_same_bits(train(fault, ""), hash);
  }
}

// MPI says so, and may hang: the deadline ends it, and names who did not come, which may be either
// end of the connection.
TEST_F(FaultsOfMpi, AConnectionThatIsResetEndsAllByTheDeadline) {
  const double start = now_seconds();
  const Outcome outcome =
      train("reset", "--set train.epochs=100000 --set parallel.timeout_seconds=10");
  EXPECT_NE(outcome.code, 0);
  EXPECT_LT(now_seconds() - start, 30);
  EXPECT_THAT(outcome.err,
              ContainsRegex("concord: .*rank [0-2] \\(process [0-9]+ on .*\\).* of step [0-9]+"));
}

// Both of its ends live on, and a third rank sees nothing of it.
TEST_F(Faults, AConnectionThatIsResetEndsAllInOneLine) {
  begin("reset");
  const double start = now_seconds();
  const Outcome outcome =
      run("train small.toml --ranks 3 --set train.epochs=100000 --set parallel.transport=gloo");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_LT(now_seconds() - start, 20);
  const std::string end =
      "connection of rank [0-2] \\(process [0-9]+ on .*\\) with rank [0-2] "
      "\\(process [0-9]+ on .*\\) has broken in the [a-z-]+.* of step [0-9]+";
  EXPECT_THAT(outcome.err, ContainsRegex(end));
  const std::size_t first = outcome.err.find("has broken");
  EXPECT_EQ(outcome.err.find("has broken", first + 1), std::string::npos) << outcome.err;
  for (const int rank : {1, 2}) {
    EXPECT_THAT(read_file(folder_ / fmt::format("run/logs/rank{}.log", rank)),
                HasSubstr("the last operations of rank"));
  }
  for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
    EXPECT_FALSE(entry.path().filename().string().starts_with("concord")) << entry.path();
  }
}

}  // namespace
}  // namespace concord::cli
