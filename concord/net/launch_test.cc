#include "concord/net/launch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::net {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int code;
  std::string said;  // on standard error
  double seconds;
};

// Logs that are kept lie in a folder of the test.
class Launch : public testing::Test {
 protected:
  Launch() : folder_(fs::path(testing::TempDir()) / "concord_launch_XXXXXX") {
    std::string name = folder_.string();
    folder_ = mkdtemp(name.data());
    setenv("TMPDIR", folder_.c_str(), 1);
  }
  ~Launch() override {
    unsetenv("TMPDIR");
    fs::remove_all(folder_);
  }

  // Every rank runs the shell's `script`.
  Outcome launch_script(const std::string& script, int ranks, double grace_seconds = 20,
                        const fs::path& directory = "",
                        std::optional<double> first_grace_seconds = std::nullopt) const {
    testing::internal::CaptureStderr();
    const double start = now_seconds();
    const int code = launch({.ranks = ranks,
                             .command = {"/bin/sh", "-c", script},
                             .directory = directory,
                             .first_grace_seconds = first_grace_seconds.value_or(grace_seconds),
                             .grace_seconds = grace_seconds});
    const double seconds = now_seconds() - start;
    return {code, testing::internal::GetCapturedStderr(), seconds};
  }

  fs::path folder_;
};

TEST_F(Launch, TellsEachRankItsPlace) {
  const Outcome outcome =
      launch_script("[ $CONCORD_RANK = 0 ] || echo $CONCORD_RANK of $CONCORD_RANKS", 3);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("rank 1: 1 of 3\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 2: 2 of 3\n"));
}

TEST_F(Launch, PrintsEqualLinesOfSeveralRanksOnce) {
  const Outcome outcome = launch_script(
      "case $CONCORD_RANK in 0) ;; 3) echo other; echo; echo ;; *) echo same; printf cut ;; esac",
      6);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("ranks 1-2,4-5: same\n"));
  EXPECT_THAT(outcome.said, HasSubstr("ranks 1-2,4-5: cut\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 3: other\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 3: \nrank 3: \n"));
}

TEST_F(Launch, DoesNotRepeatWhatRank0Says) {
  const Outcome outcome = launch_script(
      "case $CONCORD_RANK in 0) echo concord: rank 2: no room >&2; echo both >&2 ;; "
      "1) echo both; echo concord: no room ;; 2) echo concord: no room ;; 3) echo mine ;; esac",
      4);
  EXPECT_THAT(outcome.said, HasSubstr("concord: rank 2: no room\nboth\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 3: mine\n"));
  EXPECT_THAT(outcome.said, Not(HasSubstr("rank 1:")));
  EXPECT_THAT(outcome.said, Not(HasSubstr(": concord: no room")));
}

TEST_F(Launch, ReturnsTheExitCodeOfTheRankThatFailed) {
  const Outcome outcome = launch_script("[ $CONCORD_RANK != 1 ] || exit 3", 3);
  EXPECT_EQ(outcome.code, 3);
}

TEST_F(Launch, KeepsWhatEachRankSaidWhereTheJobFails) {
  const fs::path job = folder_ / "job";
  fs::create_directories(job / "logs");
  write_file_atomically(job / "logs/rank7.log", "of an earlier job\n");
  const std::string script = "printf 'draft\\r\\033[Ksaid %s\\n' $CONCORD_RANK >&2; exit 4";
  const Outcome outcome = launch_script(script, 2, 20, job);
  EXPECT_EQ(outcome.code, 4);
  EXPECT_THAT(outcome.said, testing::EndsWith("is kept in " + (job / "logs").string() + "\n"));
  EXPECT_EQ(read_file(job / "logs/rank0.log"), "said 0\n");
  EXPECT_EQ(read_file(job / "logs/rank1.log"), "said 1\n");
  EXPECT_FALSE(fs::exists(job / "logs/rank7.log"));

  const Outcome without = launch_script(script, 2, 20, folder_ / "absent");
  EXPECT_THAT(without.said, HasSubstr("is kept in " + folder_.string() + "/concord-job-"));
  EXPECT_FALSE(fs::exists(folder_ / "absent"));
}

TEST_F(Launch, KeepsNothingWhereTheJobSucceeds) {
  launch_script("echo said >&2", 2);
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(Launch, GoesOnWhereNothingCanBeKept) {
  setenv("TMPDIR", (folder_ / "absent").c_str(), 1);
  const Outcome outcome = launch_script("echo said >&2", 2);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("said\n"));
  EXPECT_THAT(outcome.said, HasSubstr("set TMPDIR"));
}

TEST_F(Launch, DoesNotWaitForRank0WhereAnotherTellsThatItIsLost) {
  const Outcome outcome = launch_script(
      fmt::format("case $CONCORD_RANK in 0) exec sleep 60 ;; 1) exit 1 ;; *) exit {} ;; esac",
                  kFirstIsLost),
      3, 0.3, "", 60);
  EXPECT_EQ(outcome.code, 1);
  EXPECT_LT(outcome.seconds, 20);
  EXPECT_THAT(outcome.said, HasSubstr("rank 0 does not end and is killed"));
}

TEST_F(Launch, KillsWhoDoesNotEndAfterAnotherHasFailed) {
  for (const char* failing : {"0", "1"}) {
    const Outcome outcome = launch_script(
        std::string("[ $CONCORD_RANK != ") + failing + " ] || exit 3; exec sleep 60", 3, 0.3);
    EXPECT_EQ(outcome.code, 3);
    EXPECT_THAT(outcome.said, HasSubstr(std::string("ranks ") + (*failing == '0' ? "1-2" : "0,2") +
                                        " do not end and are killed"));
    EXPECT_LT(outcome.seconds, 30);
  }
}

TEST_F(Launch, ACommandThatCannotBeRunIsNamed) {
  testing::internal::CaptureStderr();
  const int code = launch({.ranks = 2, .command = {"/nowhere/concord"}});
  EXPECT_EQ(code, 127);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("rank 1 cannot run /nowhere/concord"));
  EXPECT_THROW(launch({.ranks = 0, .command = {"/bin/true"}}), Error);
}

}  // namespace
}  // namespace concord::net
