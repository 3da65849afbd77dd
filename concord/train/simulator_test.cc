#include "concord/train/simulator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"
#include "concord/train/cluster_file.h"
#include "concord/train/job.h"
#include "concord/train/measured_cluster.h"

namespace concord::train {
namespace {

using testing::HasSubstr;

// Nothing is measured: hosts with processors whose speed is given.
constexpr const char* kHosts = R"(
[[hosts]]
name = "node"
count = 1024
gpus = 1
flops_per_second = 1e9
memory_bytes_per_second = 1e9
)";
constexpr const char* kFastLink = R"(
[between]
bytes_per_second = 1e15
latency_seconds = 1e-12
)";
constexpr const char* kSlowLink = R"(
[between]
bytes_per_second = 1e7
latency_seconds = 1e-3
)";

constexpr const char* kModel = R"(
[model]
name = "gpt"
layers = 4
heads = 2
width = 32
[data]
kind = "synthetic"
tokens = true
shape = [16]
samples = 4096
classes = 32
[train]
batch = 2048
leaves = 2048
threads = 1
)";

SimulatedJob simulated(int ranks, const std::string& link, std::vector<std::string> options = {}) {
  const Config config = parse_config(kModel, "run.toml", options);
  const parallel::Cluster cluster = parse_cluster(kHosts + link, "cluster.toml");
  return simulate_job(config, {.ranks = ranks, .cluster = &cluster});
}

double step_seconds(int ranks, const std::string& link, std::vector<std::string> options = {}) {
  return simulated(ranks, link, std::move(options)).step_seconds;
}

TEST(Simulator, RanksThatAreAlikeAreFoldedAndShareTheWork) {
  const std::vector<std::string> few = {"train.batch=8", "train.leaves=8"};
  const SimulatedJob four = simulated(4, kFastLink, few);
  ASSERT_EQ(four.of_ranks.size(), 1U);
  EXPECT_EQ(four.of_ranks[0].ranks, 4);
  // A thousand with as many leaves each take as long.
  const SimulatedJob many = simulated(1024, kFastLink);
  EXPECT_EQ(many.of_ranks[0].ranks, 1024);
  EXPECT_NEAR(many.step_seconds, four.step_seconds, 1e-3 * four.step_seconds);
  EXPECT_GT(step_seconds(4, kSlowLink, few), four.step_seconds);
}

// About the literature's bubbles, which are those of equal stages.
TEST(Simulator, SchedulesHaveTheirBubbles) {
  const auto idle_share = [](const std::string& schedule) {
    const SimulatedJob job = simulated(2, kFastLink,
                                       {"train.batch=8", "train.leaves=8", "parallel.mesh.pipe=2",
                                        "data.classes=2", "parallel.schedule=" + schedule});
    double compute = 0, waited = 0;
    for (const SimulatedRanks& ranks : job.of_ranks) {
      compute += ranks.compute_seconds;
      waited += ranks.waited_seconds;
    }
    EXPECT_EQ(job.of_ranks.size(), 2U);
    return waited / compute;
  };
  const double one_f_one_b = idle_share("1f1b");
  EXPECT_NEAR(idle_share("sequential"), 1, 0.15);             // p - 1
  EXPECT_NEAR(idle_share("gpipe"), 1.0 / 8, 0.05);            // (p - 1) / m
  EXPECT_NEAR(one_f_one_b, 1.0 / 8, 0.1);                     // the same
  EXPECT_LT(idle_share("zb-h1"), 0.8 * one_f_one_b);          // a third of it
  EXPECT_LT(idle_share("pipedream-2bw"), 0.5 * one_f_one_b);  // none, but for stages that differ
}

// What is simulated where the ranks of the job are those who measure.
TEST(Simulator, ARehearsalTimesTheStepsOfEachMicrobatchAndLeavesTheNextStepAsItWas) {
  const Config config = parse_config(kModel, "run.toml",
                                     std::vector<std::string>{"train.batch=12", "train.leaves=4"});
  const auto job = [&] { return open_job(config, {}); };
  Job rehearsed = job(), other = job();
  const std::unique_ptr<data::Loader> loader = other.train_loader(0, 1);
  const Samples samples = samples_of(loader->next());
  const Executor::Rehearsal rehearsal = rehearsed.engine->rehearse(samples);
  const Program& program = rehearsed.engine->training_program();
  ASSERT_EQ(rehearsal.microbatches.size(), 4U);
  EXPECT_EQ(rehearsal.inputs.size(), 4U);
  EXPECT_EQ(rehearsal.update.size(), program.update.size());
  for (const auto& seconds : rehearsal.microbatches) {
    ASSERT_EQ(seconds.size(), program.microbatch.size());
    EXPECT_GT(seconds.back(), 0);
  }
  const auto added = [&](std::size_t m) {
    double sum = 0;
    for (const double seconds : rehearsal.additions[m]) sum += seconds;
    return sum;
  };
  EXPECT_GT(added(3), 0);  // the second joins two leaves, and the fourth all of them
  const auto loss = [&](Engine& engine) {
    engine.begin_step({.samples = 12});
    engine.accumulate(samples);
    return engine.reduce().loss;
  };
  EXPECT_EQ(loss(*rehearsed.engine), loss(*other.engine));
}

TEST(Simulator, SaysWhatAClusterLacks) {
  const auto error_of = [](int ranks, const std::string& link) {
    try {
      simulated(ranks, link, {"train.batch=2048"});
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  EXPECT_THAT(error_of(2048, kFastLink), HasSubstr("1024 ranks, and the job 2048"));
  EXPECT_THAT(error_of(2, ""), HasSubstr("no link between node and node"));
}

TEST(ClusterFile, IsReadAsItIsWritten) {
  const char* const text = R"([[hosts]]
name = "a"
count = 2
ranks = 4
speed = 0.5

[[hosts]]
name = "b"
count = 1
gpus = 8
flops_per_second = 60000000000000
memory_bytes_per_second = 2000000000000

[inside]
bytes_per_second = 100000000000
latency_seconds = 0.000005

[[links]]
hosts = ["a", "b"]
bytes_per_second = 125000000
latency_seconds = 0.001
)";
  const parallel::Cluster cluster = parse_cluster(text, "cluster.toml");
  EXPECT_EQ(cluster.ranks(), 16);
  ASSERT_EQ(cluster.kinds.size(), 2U);
  EXPECT_EQ(cluster.kinds[0].speed, 0.5);
  EXPECT_EQ(cluster.kinds[1].processor->flops_per_second, 6e13);
  const auto places = parallel::place_ranks(cluster, 16);
  EXPECT_EQ(places[7].host, 1);
  EXPECT_EQ(places[8].host, 2);
  EXPECT_EQ(parallel::link_between(cluster, places[0], places[8]).latency_seconds, 1e-3);
  EXPECT_EQ(parallel::link_between(cluster, places[0], places[1]).latency_seconds, 5e-6);
  const std::string written = to_toml(cluster);
  EXPECT_EQ(to_toml(parse_cluster(written, "again.toml")), written);
}

TEST(ClusterFile, WhatIsWrongIsToldInOneLine) {
  const auto error_of = [](const std::string& text) {
    try {
      parse_cluster(text, "c.toml");
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), testing::Not(HasSubstr("\n")));
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const std::string host = "[[hosts]]\nname = \"a\"\nranks = 2\n";
  const std::string link = "bytes_per_second = 1\nlatency_seconds = 1\n";
  EXPECT_THAT(error_of(""), HasSubstr("at least one of [[hosts]]"));
  EXPECT_THAT(error_of("hosts = 3"), HasSubstr("expected [[hosts]]"));
  EXPECT_THAT(error_of("[[hosts]]\nname = \"a\""), HasSubstr("either ranks, or gpus"));
  EXPECT_THAT(error_of(host + "gpus = 2"), HasSubstr("either ranks, or gpus"));
  EXPECT_THAT(error_of("[[hosts]]\nname = \"a\"\ngpus = 2"),
              HasSubstr("expected flops_per_second"));
  EXPECT_THAT(error_of(host + "sped = 2"), HasSubstr("did you mean speed?"));
  EXPECT_THAT(error_of(host + "speed = 0"), HasSubstr("a number above 0"));
  EXPECT_THAT(error_of(host + "count = 1.5"), HasSubstr("an integer from 1"));
  EXPECT_THAT(error_of(host + "count = 65536"), HasSubstr("131072 ranks in all"));
  EXPECT_THAT(error_of(host + host), HasSubstr("hosts \"a\" already"));
  EXPECT_THAT(error_of(host + "[link]\n" + link), HasSubstr("unknown section \"link\""));
  EXPECT_THAT(error_of(host + "[between]\nbytes_per_second = -1"), HasSubstr("a number above 0"));
  EXPECT_THAT(error_of(host + "[[links]]\nhosts = [\"a\", \"z\"]\n" + link),
              HasSubstr("there are no hosts \"z\": expected two of a"));
  EXPECT_THAT(error_of(host + "[[links]]\nhosts = [\"a\"]\n" + link), HasSubstr("two kinds"));
}

std::vector<net::Way> ways_between(std::span<const int> hosts) {
  std::vector<net::Way> ways;
  for (int from = 0; from < std::ssize(hosts); ++from) {
    for (int to = 0; to < std::ssize(hosts); ++to) {
      if (from == to) continue;
      const int one = hosts[static_cast<std::size_t>(from)];
      const int other = hosts[static_cast<std::size_t>(to)];
      const double bytes = one == other ? 1e10 : one + other == 1 ? 1e9 : 1e8;
      ways.push_back(
          {.from = from, .to = to, .latency_seconds = 10 / bytes, .bytes_per_second = bytes});
    }
  }
  return ways;
}

TEST(MeasuredCluster, HasTheHostsAndTheMediansOfTheWaysBetweenThem) {
  const std::vector<std::string> names = {"a", "a", "b", "b", "c"};
  const std::vector<int> hosts = {0, 0, 1, 1, 2};
  const std::vector<net::Way> ways = ways_between(hosts);
  const parallel::Cluster cluster =
      parse_cluster(measured_cluster_file(names, hosts, ways), "c.toml");
  ASSERT_EQ(cluster.kinds.size(), 2U);
  EXPECT_EQ(cluster.kinds[0].name, "a");
  EXPECT_EQ(cluster.kinds[0].count, 2);  // a and b are alike
  EXPECT_EQ(cluster.kinds[0].ranks, 2);
  EXPECT_EQ(cluster.kinds[1].name, "c");
  const auto places = parallel::place_ranks(cluster, 5);
  const auto bytes_between = [&](std::size_t one, std::size_t other) {
    return parallel::link_between(cluster, places[one], places[other]).bytes_per_second;
  };
  EXPECT_EQ(bytes_between(0, 1), 1e10);
  EXPECT_EQ(bytes_between(1, 2), 1e9);
  EXPECT_EQ(bytes_between(3, 4), 1e8);
  EXPECT_DOUBLE_EQ(cluster.inside->latency_seconds, 1e-9);
}

TEST(MeasuredCluster, RanksOfOneHostShareMemoryAndHaveNoLink) {
  const std::vector<std::string> names = {"a", "a"};
  const std::vector<int> hosts = {0, 0};
  const std::string text = measured_cluster_file(names, hosts, ways_between(hosts));
  const parallel::Cluster cluster = parse_cluster(text, "c.toml");
  EXPECT_EQ(cluster.kinds[0].ranks, 2);
  EXPECT_FALSE(cluster.inside);
  EXPECT_THAT(text, HasSubstr("# bytes_per_second = 10000000000"));
}

TEST(MeasuredCluster, RefusesWhatAFileCannotSay) {
  const auto error_of = [](const std::vector<int>& hosts, const std::vector<net::Way>& ways) {
    try {
      measured_cluster_file(std::vector<std::string>{"a", "b", "a"}, hosts, ways);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  const std::vector<int> apart = {0, 1, 0}, each = {0, 1, 2};
  EXPECT_THAT(error_of(apart, ways_between(apart)), HasSubstr("host a are not one after another"));
  std::vector<net::Way> blocked = ways_between(each);
  blocked[0].error = "refused";
  EXPECT_THAT(error_of(each, blocked), HasSubstr("rank 0 does not reach rank 1"));
}

}  // namespace
}  // namespace concord::train
