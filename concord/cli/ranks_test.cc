// Training by several processes, as a user starts it.
#include <fmt/core.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/clock.h"
#include "concord/base/host.h"
#include "concord/cli/command_test.h"
#include "concord/data/test_data.h"
#include "concord/kernels/cpu/instruction_set.h"

namespace concord::cli {
namespace {

using testing::AnyOf;
using testing::HasSubstr;

// Batch norm and dropout, and epochs whose last batch is shorter, by so much that later ranks have
// nothing of it.
class Ranks : public CommandTest {
 protected:
  Ranks()
      : CommandTest(R"(
[model]
hidden = [24, 24]
dropout = 0.2
batch_norm = true
[data]
kind = "synthetic"
shape = [1, 6, 6]
samples = 300
classes = 3
[train]
batch = 64
leaves = 8
epochs = 4
threads = 1
[optimizer]
clip_norm = 0.5
[output]
dir = "run"
)") {}
};

TEST_F(Ranks, AnyNumberOfThemComputesTheSameBits) {
  const Outcome alone = run("train small.toml --json");
  ASSERT_EQ(alone.code, 0) << alone.err;
  const std::string metrics = read_file(folder_ / "run/metrics.jsonl");
  for (const int ranks : {2, 3, 4, 8}) {
    const std::string dir = "run" + std::to_string(ranks);
    const Outcome outcome = run("train small.toml --json --ranks " + std::to_string(ranks) +
                                " --set output.dir=" + dir);
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    for (const char* key : {"weights_hash", "loss", "accuracy", "train_loss", "step"}) {
      EXPECT_EQ(outcome.last_line()[key], alone.last_line()[key]) << ranks << " ranks: " << key;
    }
    EXPECT_THAT(outcome.err, HasSubstr("ranks " + std::to_string(ranks) + " of threads 1"));
  }
  const Outcome other =
      run("train small.toml --json --ranks 2 --set train.seed=2 --set output.dir=r");
  EXPECT_NE(other.last_line()["weights_hash"], alone.last_line()["weights_hash"]);
}

TEST_F(Ranks, LaunchRunsAnyWordsOfTrain) {
  const Outcome ranks = run("train small.toml --ranks 2 --json --set 'model.hidden=[16, 8]'");
  const Outcome launched =
      run("launch -n 2 -- train small.toml --set 'model.hidden=[16, 8]' --set output.dir=other "
          "--json");
  ASSERT_EQ(launched.code, 0) << launched.err;
  EXPECT_EQ(launched.last_line()["weights_hash"], ranks.last_line()["weights_hash"]);
  const std::pair<const char*, const char*> mistakes[] = {
      {"launch -n 2", "concord: COMMAND is required\ntry \"concord launch --help\"\n"},
      {"launch -n x -- train small.toml", "concord: --ranks: Value x not in range 1 to 256\n"},
      {"launch -n 2 -- trian", "concord: unknown command \"trian\"; did you mean \"train\"?\n"},
      {"launch -n 2 -- train small.toml --jsn", "concord: unknown option \"--jsn\"; did you mean"},
  };
  for (const auto& [words, message] : mistakes) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 2) << words;
    EXPECT_THAT(outcome.err, testing::StartsWith(message)) << words;
  }
  EXPECT_THAT(run("launch -n 2 -- doctor").err, HasSubstr("expected train, bench or preflight"));
  EXPECT_THAT(run("launch -- train small.toml").err, HasSubstr("give --ranks N or --hosts"));
  for (const char* words :
       {"train small.toml --ranks 2", "bench step small.toml --ranks 2", "preflight --ranks 2"}) {
    EXPECT_THAT(run(std::string("launch -n 2 -- ") + words).err, HasSubstr("leave out --ranks"));
  }
}

TEST_F(Ranks, AMistakeOfAllIsToldOnceAndLeavesLogs) {
  const Outcome outcome = run("train small.toml --ranks 3 --set model.weights=absent");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("absent"));
  EXPECT_EQ(outcome.err.find("absent"), outcome.err.rfind("absent")) << outcome.err;
  const std::string logs = outcome.err.substr(outcome.err.rfind(" in ") + 4);
  const std::filesystem::path folder = logs.substr(0, logs.size() - 1);
  EXPECT_THAT(read_file(folder / "rank0.log"), HasSubstr("absent"));
  // It may have been told of it by another before it found out by itself.
  EXPECT_TRUE(std::filesystem::exists(folder / "rank2.log"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
}

// 20 steps. Every number of ranks meets every transport and every kind of assignment, and each of
// these, over the numbers of ranks, every size of a bucket.
TEST_F(Ranks, TransportsBucketsAndLeavesOfEveryKindComputeTheSameBits) {
  const bool has_mpi = std::system("mpirun --version >/dev/null 2>&1") == 0;
  const std::string train =
      "train small.toml --json --quiet --set train.leaves=16 --set train.microbatch=3 ";
  const std::string alone = run(train + "--set output.dir=alone").last_line()["weights_hash"];
  const std::pair<int, const char*> assignments[] = {
      {2, "[5,11]"}, {4, "[1,7,2,6]"}, {8, "[1,3,2,2,1,4,1,2]"}};
  const char* const buckets[] = {"1", "2000", "8388608"};
  const auto run_ranks = [&](int ranks, const std::string& transport, const std::string& more) {
    const std::string words =
        train + "--set output.dir=ranks --set parallel.transport=" + transport + more;
    const Outcome outcome =
        transport != "mpi"
            ? run(fmt::format("{} --ranks {}", words, ranks))
            : run_script(
                  fmt::format("mpirun --allow-run-as-root --oversubscribe -np {} \"$concord\" {}\n",
                              ranks, words));
    EXPECT_EQ(outcome.code, 0) << outcome.err;
    std::filesystem::remove_all(folder_ / "ranks");
    return outcome.code == 0 ? outcome.last_line()["weights_hash"].get<std::string>() : "";
  };
  std::size_t number = 0;
  for (const auto& [ranks, leaves] : assignments) {
    ++number;  // which shifts the sizes of buckets from one number of ranks to the next
    for (const char* transport : {"shm", "gloo", "mpi"}) {
      if (!has_mpi && transport == std::string("mpi")) continue;
      for (const char* of_ranks : {"[]", leaves}) {
        const std::string more =
            fmt::format(" --set parallel.leaves={} --set parallel.bucket_bytes={}", of_ranks,
                        buckets[number++ % std::size(buckets)]);
        EXPECT_EQ(run_ranks(ranks, transport, more), alone) << ranks << " " << transport << more;
      }
    }
  }
  EXPECT_NE(run_ranks(2, "gloo", " --set train.seed=2"), alone);
  if (!has_mpi) GTEST_SKIP() << "Open MPI's mpirun is not installed: shm and gloo alone were tried";
}

TEST_F(Ranks, LeavesThatDoNotAddUpAreRefused) {
  const Outcome wrong = run("train small.toml --ranks 2 --set parallel.leaves=[3,4]");
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.err,
              HasSubstr("parallel.leaves = [3, 4]: expected 2 numbers, one for each rank, "
                        "of at least 1 each and 8 together (train.leaves)"));
}

TEST_F(Ranks, OptimizersOfEveryKindComputeTheSameBits) {
  // Of these some states are held in common and some by each rank.
  for (const char* settings :
       {"--set optimizer.name=adamw --set optimizer.ema_decay=0.9", "--set optimizer.name=lamb",
        "--set optimizer.name=lars --set model.hidden=[100,100]",
        "--set optimizer.name=lamb --set model.hidden=[100,100] --set optimizer.ema_decay=0.9",
        "--set optimizer.name=muon --set model.hidden=[100,100]",
        "--set optimizer.name=lion --set train.precision=bf16"}) {
    if (std::string(settings).find("bf16") != std::string::npos && !cpu::has_bf16()) continue;
    const Outcome alone =
        run(fmt::format("train small.toml --json --set output.dir=alone {}", settings));
    ASSERT_EQ(alone.code, 0) << alone.err;
    const Outcome ranks =
        run(fmt::format("train small.toml --json --ranks 3 --set output.dir=ranks {}", settings));
    ASSERT_EQ(ranks.code, 0) << ranks.err;
    EXPECT_EQ(ranks.last_line()["weights_hash"], alone.last_line()["weights_hash"]) << settings;
    std::filesystem::remove_all(folder_ / "alone");
    std::filesystem::remove_all(folder_ / "ranks");
  }
}

TEST_F(Ranks, TheirCollectivesAndStepsAreMeasured) {
  for (const char* op : {"all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all",
                         "gather", "barrier"}) {
    const Outcome outcome = run(fmt::format(
        "bench collective --op {} --ranks 3 --bytes 100KiB --repetitions 5 --json", op));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.last_line()["ranks"], 3);
    EXPECT_GT(outcome.last_line()["seconds"], 0);
  }
  EXPECT_EQ(run("bench collective --op all_reduce").code, 1);
  const Outcome step = run("launch -n 2 -- bench step small.toml --steps 3 --json");
  ASSERT_EQ(step.code, 0) << step.err;
  EXPECT_EQ(step.last_line()["ranks"], 2);
  EXPECT_GT(step.last_line()["communication_seconds"], 0);
}

TEST_F(Ranks, ACollectiveSaysWhatRan) {
  const struct {
    const char *words, *transport, *algorithm;
  } ran[] = {{"--ranks 2", "shm", "direct"},
             {"--ranks 2 --transport shm --algorithm chain", "shm", "chain"},
             {"--ranks 3 --transport gloo", "gloo", "chain"},
             {"--ranks 2 --transport gloo", "gloo", "halving_doubling"},
             {"--ranks 2 --transport gloo --any-order --algorithm ring", "gloo", "ring"},
             {"--ranks 3 --transport gloo --op broadcast", "gloo", "binomial_tree"},
             {"--ranks 3 --transport gloo --op send", "gloo", "direct"},
             {"--ranks 2 --op send", "shm", "direct"}};
  for (const auto& [words, transport, algorithm] : ran) {
    const Outcome outcome =
        run(fmt::format("bench collective --bytes 1KiB --repetitions 5 --json {}", words));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_EQ(outcome.last_line()["transport"], transport) << words;
    EXPECT_EQ(outcome.last_line()["algorithm"], algorithm) << words;
  }
  EXPECT_THAT(run("bench collective --bytes 1KiB --repetitions 5 --ranks 2").out,
              HasSubstr("on 1 host, shm, direct\n"));
}

TEST_F(Ranks, ACollectiveThatCannotBeIsRefusedByName) {
  const std::pair<const char*, const char*> mistakes[] = {
      {"--ranks 3 --transport gloo --algorithm halving_doubling",
       "algorithm halving_doubling is for 2, 4, 8, ... ranks, not for 3"},
      {"--ranks 2 --algorithm hierarchical", "algorithm hierarchical is for several hosts"},
      {"--ranks 2 --transport gloo --algorithm ring", "(bench collective: --any-order)"},
      {"--ranks 2 --op all_gather --algorithm chain", "--op all_gather is done in one way"},
      {"--ranks 2 --transport gloo --private-memory", "not gloo with auto"},
      {"--ranks 2 --transport mpi",
       "MPI knows this process as the only one, and there are 2 ranks"},
      {"--ranks 1 --op send", "--op send goes from rank 0 to the last and back"},
      {"--ranks 2 --bytes 60GiB", "2 ranks of this machine need 240 GiB, of which "},
  };
  for (const auto& [words, message] : mistakes) {
    const Outcome outcome = run(fmt::format("bench collective {}", words));
    EXPECT_EQ(outcome.code, 1) << words;
    EXPECT_THAT(outcome.err, HasSubstr(message));
  }
  const Outcome unknown = run("bench collective --ranks 2 --transport udp --algorithm fast");
  EXPECT_EQ(unknown.code, 2);
  EXPECT_THAT(unknown.err, HasSubstr("auto,shm,gloo,mpi"));
  EXPECT_THAT(run("train small.toml --set parallel.algorithm=ring").err,
              HasSubstr("expected another one, or parallel.deterministic = false"));
}

// Periods of three steps, with momentum over them; also from a checkpoint.
TEST_F(Ranks, ThatTrainByThemselvesMeetInTheMean) {
  for (const char* settings :
       {"--set parallel.sync=local", "--set parallel.sync=local --set parallel.outer_momentum=0.5",
        "--set parallel.sync=diloco --set optimizer.name=adamw --set parallel.local_after=2"}) {
    const auto train = [&, settings](const std::string& more) {
      return run(
          fmt::format("train small.toml --json --ranks 2 --set parallel.local_steps=3 "
                      "{} {}",
                      settings, more));
    };
    const Outcome whole = train("--set output.dir=whole");
    ASSERT_EQ(whole.code, 0) << whole.err;
    EXPECT_EQ(train("--set output.dir=part --set train.max_steps=6").code, 0);
    const Outcome resumed = train("--set output.dir=part --resume");
    ASSERT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_EQ(resumed.last_line()["weights_hash"], whole.last_line()["weights_hash"]) << settings;
    for (const char* dir : {"whole", "part"}) std::filesystem::remove_all(folder_ / dir);
  }
}

TEST_F(Ranks, ATraceShowsAllOfThem) {
  const Outcome run_of_two =
      run("train small.toml --ranks 2 --set output.trace_steps=3 --set output.trace_after=2 "
          "--set train.log_every=4");
  ASSERT_EQ(run_of_two.code, 0) << run_of_two.err;
  EXPECT_THAT(run_of_two.err, HasSubstr("communication"));
  EXPECT_THAT(run_of_two.err, HasSubstr("trace of 3 steps in run/trace.json"));
  const Outcome summary = run("trace summary run/trace.json --json");
  ASSERT_EQ(summary.code, 0) << summary.err;
  const nlohmann::json json = summary.last_line();
  ASSERT_EQ(json["ranks"].size(), 2U);
  for (const auto& rank : json["ranks"]) {
    EXPECT_GT(rank["compute_seconds"], 0);
    EXPECT_GT(rank["communication_seconds"], 0);
  }
  const auto runs_of = [&](std::string_view name) {
    for (const auto& op : json["ops"]) {
      if (op["name"] == name) return op["runs"].get<int>();
    }
    return 0;
  };
  EXPECT_EQ(runs_of("sum"), 2 * 3);        // one bucket
  EXPECT_EQ(runs_of("agreement"), 2 * 3);  // whether to stop
  EXPECT_THAT(run("trace summary run/trace.json").out, HasSubstr("matmul"));
}

TEST_F(Ranks, ARunIsResumedByAnotherNumberOfThem) {
  const Outcome whole = run("train small.toml --json --set output.dir=whole");
  run("train small.toml --set train.max_steps=7 --ranks 4");
  const Outcome resumed = run("train small.toml --json --resume --ranks 2");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(resumed.last_line()["weights_hash"], whole.last_line()["weights_hash"]);
}

TEST_F(Ranks, MoreThanThereAreLeavesAreRefused) {
  const Outcome outcome = run("train small.toml --ranks 3 --set train.leaves=2");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(
      outcome.err,
      HasSubstr("3 ranks share the leaves of a step, but train.leaves = 2: start at most 2"));
}

constexpr const char* kLong = "train small.toml --set train.epochs=100000 --set train.log_every=1 ";

TEST_F(Ranks, ThoseThatAreToldDifferentThingsSayWhich) {
  const Outcome outcome = run_script(R"(
export CONCORD_STORE=127.0.0.1:$((20000 + $$ % 20000)) WORLD_SIZE=2 LOCAL_WORLD_SIZE=2
export CONCORD_SECRET=0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
export MASTER_ADDR=127.0.0.1 MASTER_PORT=${CONCORD_STORE#*:}
RANK=1 "$concord" train small.toml --set train.batch=32 2>other &
RANK=0 "$concord" train small.toml
code=$?
wait
cat other >&2
exit $code
)");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err,
              HasSubstr("rank 1 has train.batch = 32, and rank 0 has train.batch = 64"));
}

TEST_F(Ranks, ANumberThatIsNotFiniteIsTracedToTheRankThatMadeIt) {
  std::string table = "x,y\n";
  for (int i = 0; i < 64; ++i) table += fmt::format("{},{}\n", i, i == 40 ? "3e38" : "1");
  write_file_atomically(folder_ / "table.csv", table);
  write_file_atomically(folder_ / "csv.toml", R"(
[model]
hidden = [4]
loss = "mse"
[data]
kind = "csv"
train_file = "table.csv"
test_file = "table.csv"
target = "y"
[train]
batch = 64
leaves = 4
threads = 1
)");
  const Outcome outcome = run("train csv.toml --ranks 4");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("its loss is inf), first in square of layer loss"));
  EXPECT_THAT(outcome.err, HasSubstr(" on rank "));
}

TEST_F(Ranks, ATraceThatWasNotWrittenIsMissed) {
  const Outcome none =
      run("train small.toml --ranks 2 --set output.trace_steps=5 --set train.max_steps=8");
  EXPECT_EQ(none.code, 0) << none.err;
  EXPECT_THAT(none.err, HasSubstr("no trace was written: steps were to be traced from step 11 on"));
  const Outcome some = run(
      "train small.toml --ranks 2 --set output.trace_steps=5 --set train.max_steps=13 --resume");
  EXPECT_THAT(some.err, HasSubstr("no trace was written"));  // 5 steps of this run
  const Outcome few =
      run("train small.toml --ranks 2 --set output.trace_steps=5 --set output.trace_after=2 "
          "--set train.max_steps=16 --resume");
  EXPECT_THAT(few.err, HasSubstr("trace of 1 step in run/trace.json"));
}

// The ranks stop and go on with the process that has started them.
TEST_F(Ranks, TheyRestAndGoOnTogether) {
  const pid_t launcher = start(std::string(kLong) + "--ranks 2", "step 5");
  const auto is_stopped = [](pid_t process) {
    const std::string stat = read_file("/proc/" + std::to_string(process) + "/stat");
    return stat[stat.rfind(')') + 2] == 'T';
  };
  const auto come_to = [&](bool stopped) {
    for (int waited = 0; waited < 500; ++waited) {
      bool all = is_stopped(launcher) == stopped;
      for (const pid_t rank : children_of(launcher)) all = all && is_stopped(rank) == stopped;
      if (all) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  };
  kill(launcher, SIGTSTP);
  EXPECT_TRUE(come_to(true));
  kill(launcher, SIGCONT);
  EXPECT_TRUE(come_to(false));
  kill(launcher, SIGTERM);
  const Outcome outcome = end_of(launcher);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
}

TEST_F(Ranks, AStopIsTakenByAllOfThemAfterTheSameStep) {
  const pid_t launcher = start(std::string(kLong) + "--ranks 3 --json", "step 5");
  kill(launcher, SIGTERM);
  const Outcome outcome = end_of(launcher);
  EXPECT_EQ(outcome.code, 0) << outcome.err;
  EXPECT_TRUE(outcome.last_line()["interrupted"].get<bool>());
  EXPECT_THAT(outcome.err, HasSubstr("to continue"));
}

TEST_F(Ranks, OneThatIsKilledEndsTheJobInOneLineAndNothingIsLost) {
  const pid_t launcher = start(std::string(kLong) + "--ranks 3", "step 5");
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 3U);
  kill(ranks[1], SIGKILL);
  const Outcome outcome = end_of(launcher);
  EXPECT_EQ(outcome.code, 128 + SIGKILL);
  EXPECT_THAT(outcome.err,
              HasSubstr("rank 1 (process " + std::to_string(ranks[1]) + ") was ended by signal 9"));
  EXPECT_THAT(outcome.err, HasSubstr(fmt::format("rank 1 (process {} on {}) has ended before the",
                                                 ranks[1], host_name())));
  EXPECT_THAT(outcome.err, AnyOf(HasSubstr("are saved in"),
                                 HasSubstr("were being updated. --resume continues from")));
  for (const pid_t rank : ranks) EXPECT_NE(kill(rank, 0), 0) << "process " << rank << " is left";
  // What the others did last is in their logs alone.
  EXPECT_THAT(outcome.err, testing::Not(HasSubstr("oldest first")));
  for (const int rank : {0, 2}) {
    const std::string log = read_file(folder_ / fmt::format("run/logs/rank{}.log", rank));
    EXPECT_THAT(log, HasSubstr(fmt::format("the last operations of rank {} (3 ranks by", rank)));
    EXPECT_THAT(log, testing::ContainsRegex("\n  step [0-9]+: (sum|agreement).* bytes; started"));
    EXPECT_THAT(log, HasSubstr("not done"));
  }
  // What was saved continues as if nothing had happened.
  const std::string at = "--set train.max_steps=1500 --quiet --json ";
  const Outcome resumed = run(std::string(kLong) + at + "--resume --ranks 2");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  const Outcome whole = run(std::string(kLong) + at + "--set output.dir=whole");
  EXPECT_EQ(resumed.last_line()["weights_hash"], whole.last_line()["weights_hash"]);
}

TEST_F(Ranks, OneThatIsStoppedEndsTheJobByTheDeadline) {
  for (const std::size_t stopped : {2, 0}) {
    const pid_t launcher =
        start(fmt::format("{}--ranks 3 --set parallel.timeout_seconds=2 --set output.dir=stopped{}",
                          kLong, stopped),
              "step 5");
    const std::vector<pid_t> ranks = children_of(launcher);
    ASSERT_EQ(ranks.size(), 3U);
    const double start = now_seconds();
    kill(ranks[stopped], SIGSTOP);
    const Outcome outcome = end_of(launcher);
    EXPECT_LT(now_seconds() - start, 30);
    EXPECT_NE(outcome.code, 0);
    EXPECT_THAT(outcome.err, testing::ContainsRegex(fmt::format(
                                 "rank {} \\(process {} on {}\\) did not (come to|finish) "
                                 "the .* of step [0-9]+ within 2 s",
                                 stopped, ranks[stopped], host_name())));
    for (const pid_t rank : ranks) EXPECT_NE(kill(rank, 0), 0) << "process " << rank << " is left";
  }
}

// The others tell, each the same.
TEST_F(Ranks, TheFirstThatIsKilledIsNamed) {
  const pid_t launcher = start(std::string(kLong) + "--ranks 3", "step 5");
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 3U);
  kill(ranks[0], SIGKILL);
  const Outcome outcome = end_of(launcher);
  EXPECT_EQ(outcome.code, 128 + SIGKILL);
  EXPECT_THAT(outcome.err, testing::ContainsRegex(fmt::format(
                               "ranks 1-2: concord: rank 0 \\(process {} on {}\\) has ended before "
                               "the .* of step [0-9]+",
                               ranks[0], host_name())));
}

TEST_F(Ranks, OneWhoseLoaderThrowsEndsTheJobInOneLine) {
  for (int i = 0; i < 8; ++i) {
    std::string bytes = data::png_bytes(data::test_image(4, 4));
    if (i == 5) bytes.resize(bytes.size() / 2);
    for (const char* name : {"train", "test"}) {
      if (name == std::string("test") && i == 5) continue;
      const auto folder = folder_ / "data" / name / (i % 2 ? "cat" : "dog");
      std::filesystem::create_directories(folder);
      write_file_atomically(folder / fmt::format("{}.png", i), bytes);
    }
  }
  write_file_atomically(folder_ / "images.toml", R"(
[model]
hidden = [4]
[data]
kind = "images"
dir = "data"
image_size = 4
normalize = "none"
[train]
batch = 8
leaves = 4
threads = 1
)");
  const Outcome outcome = run("train images.toml --ranks 4");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("cat/5.png: corrupt PNG"));
  EXPECT_EQ(outcome.err.find("5.png"), outcome.err.rfind("5.png")) << outcome.err;
}

// No weights of one rank alone are handed out as those of the run.
TEST_F(Ranks, OneThatIsKilledWhereTheyTrainByThemselvesLeavesTheLastCheckpoint) {
  const pid_t launcher =
      start(std::string(kLong) +
                "--ranks 2 --set parallel.sync=local --set parallel.local_steps=20000 "
                "--set train.eval_every_epochs=0 --set train.checkpoint_every_steps=20000",
            "step 5");
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 2U);
  kill(ranks[1], SIGKILL);
  const Outcome outcome = end_of(launcher);
  EXPECT_EQ(outcome.code, 128 + SIGKILL);
  EXPECT_THAT(outcome.err, HasSubstr("ranks had weights of their own"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run/checkpoints/latest"));
}

TEST_F(Ranks, NoneOutlivesTheProcessThatStartedThem) {
  const pid_t launcher = start(std::string(kLong) + "--ranks 2", "step 5");
  const std::vector<pid_t> ranks = children_of(launcher);
  ASSERT_EQ(ranks.size(), 2U);
  kill(launcher, SIGKILL);
  end_of(launcher);
  for (const pid_t rank : ranks) {
    EXPECT_TRUE(comes_to_an_end(rank)) << "process " << rank << " is left";
  }
}

TEST_F(Ranks, AnEnvironmentThatMakesNoSenseIsRefused) {
  setenv("CONCORD_RANK", "3", 1);
  setenv("CONCORD_RANKS", "2", 1);
  const Outcome outcome = run("train small.toml");
  unsetenv("CONCORD_RANK");
  unsetenv("CONCORD_RANKS");
  EXPECT_EQ(outcome.code, 1);
  EXPECT_THAT(outcome.err, HasSubstr("CONCORD_RANK = \"3\" in the environment: expected 0 to 1"));
}

}  // namespace
}  // namespace concord::cli
