#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/net/test_parsers.h"

namespace concord::net {
namespace {

TEST(MutatedInput, OfPeersAndTheEnvironmentIsTakenOrRefused) {
  constexpr int kMutants = 3000;
  for (const ParserTarget& target : {store_request_target(), frames_target(), job_file_target(),
                                     hosts_target(), environment_target()}) {
    const std::vector<std::string> said = refusals(target, kMutants);
    EXPECT_GT(said.size(), target.seeds.size() * kMutants / 20) << target.name;
  }
}

TEST(MutatedInput, AJobOfRanksThatAreNotThereIsRefused) {
  const std::string json = R"({"directory":"/","command":[],"first":%,"count":2,"size":3,"host":"a",
                              "secret":")" +
                           Secret().to_hex() + R"(","store":"a:1"})";
  for (const char* first : {"-1", "2"}) {
    std::string text = json;
    text.replace(text.find('%'), 1, first);
    EXPECT_THROW(AgentJob::from_json(text), Error) << first;
  }
}

}  // namespace
}  // namespace concord::net
