#include "concord/net/launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/clock.h"
#include "concord/base/error.h"

namespace concord::net {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Outcome {
  int code;
  std::string said;  // on standard error
  double seconds;
};

// Every rank runs the shell's `script`.
Outcome launch_script(const std::string& script, int ranks, double grace_seconds = 20) {
  testing::internal::CaptureStderr();
  const double start = now_seconds();
  const int code = launch({.ranks = ranks,
                           .command = {"/bin/sh", "-c", script},
                           .first_grace_seconds = grace_seconds,
                           .grace_seconds = grace_seconds});
  const double seconds = now_seconds() - start;
  return {code, testing::internal::GetCapturedStderr(), seconds};
}

TEST(Launch, TellsEachRankItsPlace) {
  const Outcome outcome =
      launch_script("[ $CONCORD_RANK = 0 ] || echo $CONCORD_RANK of $CONCORD_RANKS", 3);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("rank 1: 1 of 3\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 2: 2 of 3\n"));
}

TEST(Launch, PrintsEqualLinesOfSeveralRanksOnce) {
  const Outcome outcome = launch_script(
      "case $CONCORD_RANK in 0) ;; 3) echo other; echo; echo ;; *) echo same; printf cut ;; esac",
      6);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_THAT(outcome.said, HasSubstr("ranks 1-2,4-5: same\n"));
  EXPECT_THAT(outcome.said, HasSubstr("ranks 1-2,4-5: cut\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 3: other\n"));
  EXPECT_THAT(outcome.said, HasSubstr("rank 3: \nrank 3: \n"));
}

TEST(Launch, ReturnsTheExitCodeOfTheRankThatFailed) {
  const Outcome outcome = launch_script("[ $CONCORD_RANK != 1 ] || exit 3", 3);
  EXPECT_EQ(outcome.code, 3);
  EXPECT_EQ(outcome.said, "");
}

TEST(Launch, KillsWhoDoesNotEndAfterAnotherHasFailed) {
  for (const char* failing : {"0", "1"}) {
    const Outcome outcome = launch_script(
        std::string("[ $CONCORD_RANK != ") + failing + " ] || exit 3; exec sleep 60", 3, 0.3);
    EXPECT_EQ(outcome.code, 3);
    EXPECT_THAT(outcome.said, HasSubstr(") does not end and is killed"));
    EXPECT_THAT(outcome.said, HasSubstr("rank 2 (process"));
    EXPECT_THAT(outcome.said, Not(HasSubstr(std::string("rank ") + failing + " (process")));
    EXPECT_LT(outcome.seconds, 30);
  }
}

TEST(Launch, ACommandThatCannotBeRunIsNamed) {
  testing::internal::CaptureStderr();
  const int code = launch({.ranks = 2, .command = {"/nowhere/concord"}});
  EXPECT_EQ(code, 127);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("rank 1 cannot run /nowhere/concord"));
  EXPECT_THROW(launch({.ranks = 0, .command = {"/bin/true"}}), Error);
}

}  // namespace
}  // namespace concord::net
