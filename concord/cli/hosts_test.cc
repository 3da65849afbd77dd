// Ranks on several hosts. Network namespaces stand for these: each has interfaces, addresses and a
// loopback of its own.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/cli/command_test.h"

namespace concord::cli {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class Hosts : public CommandTest {
 protected:
  Hosts() : CommandTest(few_steps("leaves = 4")) {
    hub_ = fmt::format("concord{}h", getpid());
    a_ = fmt::format("concord{}a", getpid());
    b_ = fmt::format("concord{}b", getpid());
    write_file_atomically(folder_ / "connect",
                          "exec ip netns exec \"$1\" unshare --uts sh -c \"hostname $1; $2\"\n");
  }
  ~Hosts() override {
    for (const std::string& name : made_) succeeds("ip netns del " + name);
  }

  static bool succeeds(const std::string& words) {
    return std::system((words + " >/dev/null 2>&1").c_str()) == 0;
  }

  bool make(const std::string& name) {
    if (!succeeds("ip netns add " + name)) return false;
    made_.push_back(name);
    return succeeds(fmt::format("ip -n {} link set lo up", name));
  }

  // Joins two hosts by a network 10.NUMBER.0.0/24, in which the first is 1 and the second 2.
  static bool join(const std::string& first, const std::string& second, int number) {
    const auto end = [&](const std::string& host, int last) {
      return fmt::format(
          "ip -n {0} addr add 10.{1}.0.{2}/24 dev veth{1} && ip -n {0} link set veth{1} up", host,
          number, last);
    };
    return succeeds(
               fmt::format("ip link add veth{2} netns {0} type veth peer name veth{2} netns {1}",
                           first, second, number)) &&
           succeeds(end(first, 1)) && succeeds(end(second, 2));
  }

  // Runs a command of concord on a host, from which it reaches the others.
  std::string on(const std::string& host, const std::string& command,
                 const std::string& words) const {
    return fmt::format("cd '{0}' && TMPDIR='{0}' exec ip netns exec {1} '" CONCORD_COMMAND
                       "' {2} --remote-command 'sh {0}/connect' {3} >out 2>err </dev/null",
                       folder_.string(), host, command, words);
  }
  Outcome preflight_on(const std::string& host, const std::string& words) const {
    return outcome(std::system(on(host, "preflight", words).c_str()));
  }

  std::string hub_, a_, b_;
  std::vector<std::string> made_;
};

#define SKIP_WITHOUT(made)                                                          \
  if (!(made))                                                                      \
  GTEST_SKIP() << "network namespaces cannot be made here (they want root, and ip " \
                  "of iproute2)"

TEST_F(Hosts, ReachEachOtherAtTheAddressThatBothSee) {
  SKIP_WITHOUT(make(a_) && make(b_) && join(a_, b_, 1));
  // Both have an address of this name, so that each reaches itself alone by it.
  for (const std::string& host : {a_, b_}) {
    ASSERT_TRUE(succeeds(fmt::format("ip -n {} addr add 192.0.2.1/32 dev veth1", host)));
  }
  const Outcome outcome = preflight_on(a_, fmt::format("--json --hosts {}:1,{}:2", a_, b_));
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const nlohmann::json result = outcome.last_line();
  EXPECT_EQ(result["ranks"], 3);
  EXPECT_EQ(result["ways"].size(), 6U);
  for (const nlohmann::json& way : result["ways"]) {
    EXPECT_GT(way["latency_seconds"], 0) << way;
    EXPECT_GT(way["bandwidth_bytes_per_second"], 0) << way;
    EXPECT_TRUE(way["error"].is_null()) << way;
  }
}

TEST_F(Hosts, AWayThatIsBlockedIsNamed) {
  // Both reach the hub, from which they are started, and which passes nothing on.
  SKIP_WITHOUT(make(hub_) && make(a_) && make(b_) && join(hub_, a_, 1) && join(hub_, b_, 2));
  const Outcome outcome = preflight_on(hub_, fmt::format("--json --hosts {}:2,{}", a_, b_));
  EXPECT_EQ(outcome.code, 1) << outcome.err;
  EXPECT_THAT(outcome.err, AllOf(HasSubstr("rank 0 on "), HasSubstr(" does not reach rank 2 on "),
                                 HasSubstr("10.2.0.2")));
  for (const nlohmann::json& way : outcome.last_line()["ways"]) {
    const bool is_between_hosts = way["from"] == 2 || way["to"] == 2;
    EXPECT_EQ(way["error"].is_string(), is_between_hosts) << way;
  }
}

TEST_F(Hosts, WhoIsNotReachedIsNamed) {
  SKIP_WITHOUT(make(a_) && make(b_) && join(a_, b_, 1));
  const Outcome absent = preflight_on(a_, fmt::format("--hosts {}:1,nowhere:1", a_));
  EXPECT_EQ(absent.code, 1);
  EXPECT_THAT(absent.err, AllOf(StartsWith("concord: host nowhere: "), HasSubstr("nowhere")));
  const Outcome address =
      preflight_on(a_, fmt::format("--hosts {}:1,{}:1 --address 127.0.0.1", a_, b_));
  EXPECT_EQ(address.code, 1);
  EXPECT_THAT(address.err, HasSubstr("host " + b_ + " reaches this machine at none of"));
}

TEST_F(Hosts, TrainTheSameBitsAsOne) {
  SKIP_WITHOUT(make(a_) && make(b_) && join(a_, b_, 1));
  const Outcome alone = run("train small.toml --json --set output.dir=alone");
  // Both have an address of this name, so that each reaches itself alone by it.
  for (const std::string& host : {a_, b_}) {
    ASSERT_TRUE(succeeds(fmt::format("ip -n {} addr add 192.0.2.1/32 dev veth1", host)));
  }
  const auto train = [&](int of_b, const std::string& more) {
    return outcome(std::system(
        on(a_, "launch",
           fmt::format("--hosts {}:2,{}:{} -- train small.toml --json {}", a_, b_, of_b, more))
            .c_str()));
  };
  for (const char* algorithm : {"auto", "hierarchical"}) {
    const Outcome outcome = train(
        2, fmt::format("--set 'output.dir=it'\\''s {0}' --set parallel.algorithm={0}", algorithm));
    ASSERT_EQ(outcome.code, 0) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr("4 ranks by concord launch on 2 hosts, gloo"));
    EXPECT_EQ(outcome.last_line()["weights_hash"], alone.last_line()["weights_hash"]);
    EXPECT_TRUE(std::filesystem::exists(folder_ / fmt::format("it's {}", algorithm)))
        << "words arrive as they were";
  }
  EXPECT_THAT(train(1, "--set parallel.algorithm=hierarchical").err,
              HasSubstr("the ranks here are on hosts number 0, 0, 1; expected another algorithm"));
  EXPECT_THAT(train(1, "--set parallel.algorithm=ring").err, HasSubstr("expected another one, or"));
}

TEST_F(Hosts, NoneOutlivesTheAgentOrTheLauncher) {
  SKIP_WITHOUT(make(a_) && make(b_) && join(a_, b_, 1));
  for (const bool kills_agent : {true, false}) {
    std::filesystem::remove_all(folder_ / "run");
    const pid_t launcher = start_shell(
        on(a_, "launch",
           fmt::format("--hosts {}:1,{}:1 -- train small.toml --set train.epochs=100000 "
                       "--set train.log_every=1",
                       a_, b_)),
        "step 5/");
    const std::vector<pid_t> agents = children_of(launcher);
    ASSERT_EQ(agents.size(), 2U);
    std::vector<pid_t> processes = agents;
    for (const pid_t agent : agents) {
      for (const pid_t rank : children_of(agent)) processes.push_back(rank);
    }
    ASSERT_EQ(processes.size(), 4U);
    kill(kills_agent ? agents[1] : launcher, SIGKILL);
    const Outcome outcome = end_of(launcher);
    if (kills_agent) {
      EXPECT_EQ(outcome.code, 255);
      EXPECT_THAT(outcome.err, HasSubstr("host " + b_ + " is lost: "));
    }
    for (const pid_t process : processes) {
      EXPECT_TRUE(comes_to_an_end(process)) << "process " << process << " is left";
    }
  }
}

}  // namespace
}  // namespace concord::cli
