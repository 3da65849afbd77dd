#include "concord/cli/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace concord::cli {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

train::RunStart run() {
  return {
      .model = "mlp", .total_steps = 600, .steps_per_epoch = 200, .peak_flops_per_second = 1e11};
}

train::Progress progress() {
  return {.step = 300,
          .total_steps = 600,
          .epoch = 2,
          .loss = 0.4321,
          .accuracy = 0.875,
          .samples_per_second = 12345,
          .flops_per_second = 2.5e10,
          .data_wait_fraction = 0.005,
          .eta_seconds = 42};
}

TEST(Progress, LineSaysEverythingWhereThereIsRoom) {
  EXPECT_EQ(format_progress(progress(), run(), 200),
            "[########........]  epoch 2/3 step 300/600  loss 0.4321  accuracy 87.5 %  ETA 42.0 s  "
            "12.3 k samples/s  25.0 GFLOP/s (25 % of peak)");
}

TEST(Progress, LineNeverExceedsTheWidth) {
  for (int width = 0; width <= 200; ++width) {
    EXPECT_LE(format_progress(progress(), run(), width).size(), static_cast<std::size_t>(width));
  }
}

TEST(Progress, EightyColumnsHoldEverything) {
  train::Progress long_run = progress();
  long_run.step = 4800;
  long_run.total_steps = 5628;
  long_run.epoch = 11;
  train::RunStart run_of_twelve = run();
  run_of_twelve.steps_per_epoch = 469;
  run_of_twelve.total_steps = 5628;
  long_run.loss = 0.12984;
  EXPECT_EQ(format_progress(long_run, run_of_twelve, 79),
            "11/12 4800/5628 loss 0.13 acc 87.5 % ETA 42.0 s 12.3 k/s 25 GFLOP/s (25 %)");
}

TEST(Progress, NarrowTerminalKeepsWhatMattersMost) {
  EXPECT_EQ(format_progress(progress(), run(), 40), "2/3 300/600 loss 0.432 acc 87.5 %");
  EXPECT_EQ(format_progress(progress(), run(), 8), "2/3 300/");
}

TEST(Progress, BarIsEmptyAtTheStartAndFullAtTheEnd) {
  train::Progress at = progress();
  at.step = 0;
  EXPECT_THAT(format_progress(at, run(), 200), StartsWith("[................]"));
  at.step = 600;
  EXPECT_THAT(format_progress(at, run(), 200), StartsWith("[################]"));
  EXPECT_THAT(format_progress(at, run(), 200), Not(HasSubstr("ETA")));
}

TEST(Progress, DataWaitIsShownAboveOnePercentAlone) {
  train::Progress slow = progress();
  EXPECT_THAT(format_progress(slow, run(), 200), Not(HasSubstr("data wait")));
  slow.data_wait_fraction = 0.25;
  EXPECT_THAT(format_progress(slow, run(), 200), HasSubstr("data wait 25 %"));
}

TEST(Progress, WhereTheTimeOfSeveralRanksGoesIsShown) {
  train::Progress several = progress();
  several.communication_fraction = 0.05;
  several.hidden_fraction = 0.4;
  train::RunStart ranks = run();
  EXPECT_THAT(format_log_line(several, ranks), Not(HasSubstr("communication")));
  ranks.ranks = 2;
  EXPECT_THAT(format_log_line(several, ranks),
              HasSubstr("compute 94 %, communication 5 % (hidden 40 %), data wait 0 %"));
}

TEST(Progress, AccuracyIsLeftOutWhereItDoesNotApply) {
  train::Progress regression = progress();
  regression.accuracy = -1;
  EXPECT_THAT(format_progress(regression, run(), 200), Not(HasSubstr("accuracy")));
  EXPECT_EQ(format_evaluation(regression, {.loss = 0.25, .samples = 10, .seconds = 0.5}),
            "epoch 2, step 300: test loss 0.25, 10 samples in 500 ms");
}

TEST(Progress, UnknownPeakGivesNoShareOfIt) {
  train::RunStart unknown = run();
  unknown.peak_flops_per_second = 0;
  EXPECT_THAT(format_log_line(progress(), unknown), Not(HasSubstr("peak")));
}

// What an observer writes for `steps` steps and one evaluation.
std::string written(ProgressObserver::Options options, int steps) {
  std::FILE* file = std::tmpfile();
  options.stream = file;
  {
    ProgressObserver observer(options);
    observer.started(run());
    train::Progress at = progress();
    for (at.step = 1; at.step <= steps; ++at.step) observer.stepped(at);
    observer.evaluated(at, {.loss = 0.5, .accuracy = 0.5, .samples = 10, .seconds = 1});
  }
  std::string text(static_cast<std::size_t>(std::ftell(file)), '\0');
  std::rewind(file);
  EXPECT_EQ(std::fread(text.data(), 1, text.size(), file), text.size());
  std::fclose(file);
  return text;
}

std::size_t occurrences(const std::string& text, const std::string& part) {
  std::size_t count = 0;
  for (std::size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++count;
  return count;
}

TEST(Progress, TellsWhichRankHasHowManyLeaves) {
  EXPECT_EQ(format_leaves({2, 2, 2, 2}, 4), "leaves 8: ranks 0-3 have 2 each");
  EXPECT_EQ(format_leaves({1, 1, 2}, 3), "leaves 4: rank 2 has 2, ranks 0-1 have 1 each");
  EXPECT_EQ(format_leaves({2, 2}, 4), "leaves 4: ranks 0-1 along data have 2 each");
}

TEST(Progress, TellsHowTheModelIsDividedAndWhatIsOffloaded) {
  train::RunStart run;
  EXPECT_EQ(format_division(run), "");
  run.mesh = {{{"data", 2}}};
  EXPECT_EQ(format_division(run), "");
  run.mesh.axes.push_back({"tensor", 2});
  EXPECT_EQ(format_division(run), "mesh {data: 2, tensor: 2}");
  run.zero = 1;
  run.offload = "optimizer";
  EXPECT_EQ(format_division(run), "mesh {data: 2, tensor: 2}, zero 1, offload optimizer");
}

TEST(ProgressObserver, WritesPlainLinesEveryFewStepsWhereThereIsNoTerminal) {
  const std::string text = written({.log_every = 100}, 300);
  EXPECT_EQ(occurrences(text, "epoch 2/3 step "), 3U);
  EXPECT_EQ(occurrences(text, "test loss 0.5"), 1U);
  EXPECT_EQ(occurrences(text, "\r"), 0U);
  EXPECT_EQ(occurrences(text, "\033"), 0U);
  EXPECT_EQ(occurrences(written({.log_every = 0}, 300), "epoch 2/3 step "), 0U);
}

TEST(ProgressObserver, RedrawsOneLineSparinglyAndErasesItBeforeOthers) {
  const std::string text = written({.terminal = STDERR_FILENO, .log_every = 1}, 300);
  EXPECT_LT(occurrences(text, "loss 0.4321"), 100U) << "300 steps take far less than 10 seconds";
  EXPECT_THAT(text, HasSubstr("\r\033[Kepoch 2, step 301: test loss 0.5"));
}

}  // namespace
}  // namespace concord::cli
