#include "concord/train/saver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <numeric>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/comm/test_ranks.h"
#include "concord/nn/step.h"
#include "concord/train/inference.h"

namespace concord::train {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;

class SaverTest : public testing::Test {
 protected:
  SaverTest() {
    std::string name = (fs::path(testing::TempDir()) / "concord_saver_XXXXXX").string();
    CONCORD_CHECK(::mkdtemp(name.data()) != nullptr);
    directory_ = name;
  }
  ~SaverTest() override { fs::remove_all(directory_); }

  fs::path directory_;
};

// Two ranks along data divide all states, and, of four, two along tensor the model.
std::unique_ptr<Engine> make_engine(comm::Communicator& ranks) {
  nn::StepOptions options;
  options.model.name = "mlp";
  options.model.hidden = {256, 128};
  options.sample = {1, 8, 8};
  options.outputs = 4;
  options.optimizer.name = "adamw";
  EngineOptions engine_options{.batch = 16, .leaves = 4, .seed = 3, .policy = {.measure = false}};
  engine_options.ranks = &ranks;
  engine_options.plan.mesh = {{{"data", 2}, {"tensor", ranks.size() / 2}}};
  engine_options.plan.zero = 3;
  auto engine = std::make_unique<Engine>(model_graphs(options), engine_options);
  engine->join_ranks();
  return engine;
}

// What is saved is what all ranks together read of each state.
void check(const Checkpoint& checkpoint, const std::map<std::string, OwnedTensor>& states) {
  std::size_t tensors = 0;
  for (const auto& [name, expected] : states) {
    const auto& file =
        checkpoint.weights.contains(name) ? checkpoint.weights : checkpoint.optimizer;
    ASSERT_TRUE(file.contains(name)) << name;
    EXPECT_EQ(std::memcmp(file.bytes(name).data(), expected.view().data, expected.type().bytes()),
              0)
        << name;
    ++tensors;
  }
  EXPECT_EQ(tensors, checkpoint.weights.names().size() + checkpoint.optimizer.names().size());
}

TEST_F(SaverTest, EachStateIsWrittenByOneRankThatSeesTheFolder) {
  for (const int size : {2, 4}) {
    for (const bool all_see : {true, false}) {
      const fs::path folder = directory_ / fmt::format("{}{}", size, all_see);
      comm::run_ranks("gloo", size, [&](comm::Communicator& ranks) {
        const std::unique_ptr<Engine> engine = make_engine(ranks);
        const bool sees = all_see || ranks.is_first();
        Saver saver(sees ? folder : folder / "elsewhere", 2, std::nullopt, ranks);
        saver.begin(*engine);
        EXPECT_TRUE(saver.takes_part());
        std::map<std::string, OwnedTensor> states;
        for (const StateStore::Entry& entry : engine->states().entries()) {
          states.emplace(entry.name, engine->states().read(entry));
        }
        EXPECT_TRUE(saver.is_best(0.25));
        EXPECT_FALSE(saver.save({.step = 3, .score = 0.5}, {}));
        std::optional<SaveResult> result;
        for (std::uint32_t agreed = Saver::kWrites; agreed != 0;) {
          agreed = ranks.any_of(saver.flags());
          result = saver.poll(agreed);
          EXPECT_FALSE(all_see && agreed != 0 && result.has_value());
        }
        if (!result) result = saver.wait();
        EXPECT_EQ(result.has_value(), ranks.is_first());
        EXPECT_EQ(result.value_or(SaveResult()).error, "");
        EXPECT_FALSE(saver.is_best(0.25));
        if (ranks.is_first()) {
          check(*load_latest(folder), states);
          EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1);
        }
        ranks.barrier();
      });
      EXPECT_FALSE(fs::exists(folder / "elsewhere"));
    }
  }
}

TEST_F(SaverTest, ASaveThatARankCannotWriteIsReportedByTheFirst) {
  comm::run_ranks("gloo", 2, [&](comm::Communicator& ranks) {
    const std::unique_ptr<Engine> engine = make_engine(ranks);
    Saver saver(directory_, 2, std::nullopt, ranks);
    saver.begin(*engine);
    const fs::path obstacle = CheckpointStore::being_written(directory_, 1);
    if (ranks.is_first()) OutputFile{obstacle};
    ranks.barrier();
    const auto expect_error = [&](const std::optional<SaveResult>& result, const char* text) {
      ASSERT_EQ(result.has_value(), ranks.is_first());
      if (!result) return;
      EXPECT_THAT(result->error, HasSubstr(text));
    };
    // It cannot begin: no rank waits for another.
    expect_error(saver.save({.step = 1}, {}), "step 1 was not saved: ");
    EXPECT_EQ(saver.begun_step(), -1);
    EXPECT_EQ(saver.flags(), 0u);
    EXPECT_FALSE(saver.wait());
    // Next time it can.
    EXPECT_FALSE(saver.save({.step = 1}, {}));
    EXPECT_EQ(saver.begun_step(), 1);
    EXPECT_EQ(saver.wait().has_value(), ranks.is_first());
  });
  EXPECT_EQ(load_latest(directory_)->info.step, 1);
}

TEST_F(SaverTest, StatesAreDealtOutEvenly) {
  comm::run_ranks("gloo", 2, [&](comm::Communicator& ranks) {
    const std::unique_ptr<Engine> engine = make_engine(ranks);
    const StateStore& states = engine->states();
    const std::vector<int> writers = {3, 7};
    const std::vector<int> writer = writers_of(states, writers);
    std::map<int, std::size_t> bytes;
    std::size_t largest = 0;
    for (std::size_t i = 0; i < writer.size(); ++i) {
      bytes[writer[i]] += states.entries()[i].type.bytes();
      largest = std::max(largest, states.entries()[i].type.bytes());
    }
    ASSERT_EQ(bytes.size(), 2u);
    EXPECT_LE(std::max(bytes[3], bytes[7]) - std::min(bytes[3], bytes[7]), largest);
    EXPECT_THAT(writers_of(states, std::vector{5}), Each(5));
  });
}

}  // namespace
}  // namespace concord::train
