// The engine's promises: the leaves of a step decide its bits, and nothing else does.
#include "concord/train/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/comm/test_ranks.h"
#include "concord/graph/op.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/nn/step.h"
#include "concord/train/inference.h"

namespace concord::train {
namespace {

constexpr std::int64_t kBatch = 16;
constexpr int kClasses = 4;

nn::StepOptions small_model(const std::string& name) {
  nn::StepOptions options;
  options.model.name = name;
  options.model.hidden = {24, 12};
  options.model.width = 8;
  options.model.blocks = {1, 1};
  options.model.dropout = name == "mlp" ? 0.2 : 0.0;
  options.sample = {1, 8, 8};
  options.outputs = kClasses;
  options.optimizer.momentum = 0.9;
  options.seed = 5;
  return options;
}

std::unique_ptr<Engine> make_engine(const std::string& model, std::int64_t leaves,
                                    std::int64_t microbatch = 0, DType precision = DType::kF32) {
  return std::make_unique<Engine>(model_graphs(small_model(model)),
                                  EngineOptions{.batch = kBatch,
                                                .leaves = leaves,
                                                .microbatch = microbatch,
                                                .seed = 3,
                                                .precision = precision,
                                                .policy = {.measure = false}});
}

std::vector<DType> precisions() {
  return cpu::has_bf16() ? std::vector{DType::kF32, DType::kBF16} : std::vector{DType::kF32};
}

struct Data {
  std::vector<float> features;
  std::vector<std::int32_t> labels;

  explicit Data(std::int64_t count, std::uint32_t stream = 0) {
    const RandomStream random{.seed = 11, .stream = stream};
    for (std::int64_t i = 0; i < count * 64; ++i) {
      features.push_back(normal01(random.bits(2 * static_cast<std::uint64_t>(i)),
                                  random.bits(2 * static_cast<std::uint64_t>(i) + 1)));
    }
    for (std::int64_t i = 0; i < count; ++i)
      labels.push_back(static_cast<std::int32_t>(i % kClasses));
  }
  Samples range(std::int64_t begin, std::int64_t end) const {
    return {.count = end - begin,
            .features = std::span(features).subspan(static_cast<std::size_t>(begin * 64),
                                                    static_cast<std::size_t>((end - begin) * 64)),
            .labels = std::span(labels).subspan(static_cast<std::size_t>(begin),
                                                static_cast<std::size_t>(end - begin))};
  }
};

// Three steps, each brought in `calls` calls; the last is shorter by three samples.
std::string train_in_calls(Engine& engine, std::int64_t calls) {
  for (std::int64_t step = 0; step < 3; ++step) {
    const Data data(kBatch, static_cast<std::uint32_t>(step));
    const std::int64_t samples = step == 2 ? kBatch - 3 : kBatch;
    engine.begin_step({step, samples, 0.05});
    for (std::int64_t begin = 0; begin < samples; begin += kBatch / calls) {
      engine.accumulate(data.range(begin, std::min(samples, begin + kBatch / calls)));
    }
    engine.reduce();
    engine.update();
  }
  return hash_of_weights(engine);
}

TEST(Engine, AccumulationOverOneTwoOrFourCallsGivesTheSameBits) {
  for (const char* model : {"mlp", "resnet_small"}) {
    for (const DType precision : precisions()) {
      const auto hash = [&](std::int64_t leaves, std::int64_t calls) {
        return train_in_calls(*make_engine(model, leaves, 0, precision), calls);
      };
      const std::string one = hash(4, 1);
      EXPECT_EQ(one, hash(4, 2)) << model << " " << to_string(precision);
      EXPECT_EQ(one, hash(4, 4)) << model << " " << to_string(precision);
      // Other leaves, other bits; but sums of a few products of bf16 are exact.
      if (precision == DType::kF32) {
        EXPECT_NE(one, hash(2, 1)) << model;
      }
    }
  }
}

TEST(Engine, WhatIsPlannedIsWhatIsAllocatedAndComputesTheSame) {
  for (const char* model : {"mlp", "resnet_small"}) {
    for (const std::int64_t microbatch : {0, 1, 2}) {
      for (const Recompute recompute : {Recompute::kNone, Recompute::kFull}) {
        EngineOptions options{.batch = kBatch,
                              .leaves = 4,
                              .microbatch = microbatch,
                              .recompute = recompute,
                              .policy = {.measure = false}};
        const auto prepared = [&](bool only_planned) {
          options.only_planned = only_planned;
          auto engine = std::make_unique<Engine>(model_graphs(small_model(model)), options);
          engine->prepare_training(kBatch - 3);
          engine->prepare_evaluation(kBatch);
          return engine;
        };
        const auto planned = prepared(true), real = prepared(false);
        const std::size_t workspace = planned->workspace_bytes(),
                          states = planned->states().bytes();
        EXPECT_EQ(planned->states().data(), nullptr);
        EXPECT_EQ(workspace, real->workspace_bytes());
        EXPECT_EQ(states, real->states().bytes());
        planned->allocate();
        EXPECT_EQ(workspace, planned->workspace_bytes());  // that there is
        EXPECT_EQ(train_in_calls(*planned, 1), train_in_calls(*real, 1));
      }
    }
  }
}

TEST(Engine, StatesAndGradientSumsAreF32WhateverThePrecision) {
  if (!cpu::has_bf16()) GTEST_SKIP() << "the processor has no bf16";
  const auto engine = make_engine("resnet_small", 2, 0, DType::kBF16);
  for (const StateStore::Entry& entry : engine->states().entries()) {
    EXPECT_EQ(entry.type.dtype, DType::kF32) << entry.name;
  }
  const auto in_f32 = make_engine("resnet_small", 2);
  const std::vector<Sum>& sums = engine->training_program().sums;
  ASSERT_EQ(sums.size(), in_f32->training_program().sums.size());
  for (std::size_t i = 0; i < sums.size(); ++i) {  // padded to other blocks, perhaps
    EXPECT_EQ(sums[i].type, in_f32->training_program().sums[i].type) << sums[i].name;
    EXPECT_EQ(sums[i].type.dtype, DType::kF32) << sums[i].name;
  }
}

TEST(Engine, MicrobatchesOfALeafGiveTheSameGradientUpToRounding) {
  const auto whole = make_engine("mlp", 2);
  const auto cut = make_engine("mlp", 2, 3);
  const Data data(kBatch);
  for (Engine* engine : {whole.get(), cut.get()}) {
    engine->begin_step({0, kBatch, 0.1});
    engine->accumulate(data.range(0, kBatch));
    engine->reduce();
    engine->update();
  }
  for (const StateStore::Entry& entry : whole->states().entries()) {
    const OwnedTensor a = whole->states().read(entry);
    const OwnedTensor b = cut->states().read(*cut->states().find(entry.name));
    for (std::size_t i = 0; i < a.as<float>().size(); ++i) {
      EXPECT_NEAR(a.as<float>()[i], b.as<float>()[i], 1e-5) << entry.name;
    }
  }
}

TEST(Engine, LearnsAndEvaluatesWhatItLearned) {
  const auto engine = make_engine("resnet_small", 2);
  const Data data(kBatch);
  double first = 0, last = 0;
  for (std::int64_t step = 0; step < 40; ++step) {
    engine->begin_step({step, kBatch, 0.1});
    engine->accumulate(data.range(0, kBatch));
    last = engine->reduce().loss;
    engine->update();
    if (step == 0) first = last;
  }
  EXPECT_LT(last, 0.2 * first);
  const StepResult result = engine->evaluate(data.range(0, 13));
  EXPECT_GE(result.correct, 11);
  std::vector<float> logits(13 * kClasses);
  EXPECT_EQ(engine->predict(data.range(0, 13), logits), kClasses);
  int agree = 0;
  for (std::size_t i = 0; i < 13; ++i) {
    const auto row = std::span(logits).subspan(i * kClasses, kClasses);
    agree += std::max_element(row.begin(), row.end()) - row.begin() == data.labels[i];
  }
  EXPECT_EQ(agree, static_cast<int>(result.correct));
}

constexpr double kDecay = 0.9;

std::unique_ptr<Engine> make_averaging_engine() {
  nn::StepOptions options = small_model("resnet_small");
  options.optimizer.ema_decay = kDecay;
  return std::make_unique<Engine>(
      model_graphs(options),
      EngineOptions{.batch = kBatch, .leaves = 4, .seed = 3, .policy = {.measure = false}});
}

TEST(Engine, AveragesStartAsTheParametersAndFollowThem) {
  const auto engine = make_averaging_engine();
  const StateStore& states = engine->states();
  const StateStore::Entry& weight = *states.find("conv1.weight");
  const auto values = [&](const StateStore::Entry& entry) {
    const OwnedTensor tensor = states.read(entry);
    return std::vector<double>(tensor.as<float>().begin(), tensor.as<float>().end());
  };
  std::vector<double> expected = values(weight);
  EXPECT_EQ(values(*average_of(states, weight)), expected);
  for (std::int64_t step = 0; step < 5; ++step) {
    engine->begin_step({step, kBatch, 0.1});
    engine->accumulate(Data(kBatch).range(0, kBatch));
    engine->reduce();
    engine->update();
    const std::vector<double> now = values(weight), averages = values(*average_of(states, weight));
    for (std::size_t i = 0; i < now.size(); ++i) {
      expected[i] = kDecay * expected[i] + (1 - kDecay) * now[i];
      ASSERT_NEAR(averages[i], expected[i], 1e-6) << step;
    }
  }
}

// And the running statistics as they are.
TEST(Engine, EvaluatesAndPredictsWithTheAverages) {
  const auto averaging = make_averaging_engine();
  const auto plain = make_engine("resnet_small", 4);
  const std::string averages = train_in_calls(*averaging, 1);
  const std::string weights = train_in_calls(*plain, 1);
  EXPECT_NE(averages, weights);
  for (const StateStore::Entry& entry : plain->states().entries()) {
    const StateStore::Entry& same = *averaging->states().find(entry.name);
    const OwnedTensor trained = averaging->states().read(same),
                      without = plain->states().read(entry);
    EXPECT_TRUE(std::ranges::equal(trained.as<float>(), without.as<float>())) << entry.name;
    const StateStore::Entry* average = average_of(averaging->states(), same);
    if (average == nullptr) continue;
    plain->states().write(entry, averaging->states().read(*average).view().data);
  }
  EXPECT_EQ(hash_of_weights(*plain), averages);
  const Data data(kBatch);
  EXPECT_EQ(averaging->evaluate(data.range(0, 13)).loss, plain->evaluate(data.range(0, 13)).loss);
  std::vector<float> logits(13 * kClasses), expected(13 * kClasses);
  averaging->predict(data.range(0, 13), logits);
  plain->predict(data.range(0, 13), expected);
  EXPECT_EQ(logits, expected);
}

TEST(Engine, AveragesDependOnLeavesAlone) {
  EXPECT_EQ(train_in_calls(*make_averaging_engine(), 1),
            train_in_calls(*make_averaging_engine(), 4));
}

TEST(Engine, StepWithoutUpdateLeavesEveryStateAsItWas) {
  const auto engine = make_engine("resnet_small", 2);
  std::vector<std::byte> before(engine->states().data(),
                                engine->states().data() + engine->states().bytes());
  Data data(kBatch);
  data.features[70] = NAN;
  engine->begin_step({0, kBatch, 0.1});
  engine->accumulate(data.range(0, kBatch));
  EXPECT_FALSE(engine->reduce().finite);
  const Engine::Culprit culprit = engine->find_nonfinite(data.range(0, kBatch));
  EXPECT_FALSE(culprit.is_state);
  EXPECT_NE(culprit.description.find("conv"), std::string::npos) << culprit.description;
  EXPECT_TRUE(std::equal(before.begin(), before.end(), engine->states().data()));
}

// What the activations of a narrow language model take, of one sample.
double arena_of_gpt(std::int64_t length, int vocabulary, DType precision) {
  nn::StepOptions options;
  options.model = {.name = "gpt", .width = 16, .layers = 1, .heads = 2};
  options.tokens = true;
  options.sample = {length};
  options.outputs = vocabulary;
  const Engine engine(
      model_graphs(options),
      {.batch = 1, .leaves = 1, .precision = precision, .policy = {.measure = false}});
  return static_cast<double>(engine.training_program().arena_bytes);
}

// The same in an evaluation, which is compiled when the workspace is theirs together.
TEST(Engine, RanksThatDivideAModelReadEachOthersOperandsWhereTheyLie) {
  nn::StepOptions options = small_model("mlp");
  options.model.hidden = {512, 512};
  const auto losses = [&](comm::Communicator* ranks) {
    const int size = ranks == nullptr ? 1 : ranks->size();
    EngineOptions engine_options{.batch = kBatch, .leaves = 1, .seed = 3};
    engine_options.policy.measure = false;
    engine_options.ranks = ranks;
    engine_options.plan.mesh = {{{"data", 1}, {"tensor", size}}};
    Engine engine(model_graphs(options), engine_options);
    engine.join_ranks();
    std::vector<double> result;
    for (std::int64_t step = 0; step < 2; ++step) {
      engine.begin_step({step, kBatch, 0.05});
      engine.accumulate(Data(kBatch).range(0, kBatch));
      result.push_back(engine.reduce().loss);
      engine.update();
      result.push_back(engine.evaluate(Data(kBatch).range(0, kBatch)).loss);
    }
    return result;
  };
  const std::vector<double> expected = losses(nullptr);
  comm::run_ranks("shm", 2, [&](comm::Communicator& ranks) {
    const std::vector<double> found = losses(&ranks);
    for (std::size_t i = 0; i < expected.size(); ++i) {
      EXPECT_NEAR(found[i], expected[i], 1e-4 * expected[i]);
    }
    int exchanges = 0;
    for (const comm::Record& record : ranks.flight_record()) {
      using Kind = comm::Operation::Kind;
      const Kind kind = record.operation.kind;
      if (kind == Kind::kBroadcast || kind == Kind::kTreeSum) continue;
      const bool is_large = record.operation.bytes > 4096;
      EXPECT_EQ(record.result.in_place, is_large) << record.operation.label.text();
      if (is_large) ++exchanges;
    }
    EXPECT_GE(exchanges, 4);
  });
}

// The scores of every pair of positions would take four times as much, and most of it.
TEST(Engine, MemoryOfAttentionGrowsAsTheLength) {
  for (const DType precision : precisions()) {
    EXPECT_LT(arena_of_gpt(2048, kClasses, precision),
              2.1 * arena_of_gpt(1024, kClasses, precision))
        << to_string(precision);
  }
}

// Of 4096 tokens, those of a block have logits at a time (kernels/cpu/linear_cross_entropy.cc).
TEST(Engine, LogitsOfALargeVocabularyAreNotKept) {
  constexpr std::int64_t kTokens = 4096;
  constexpr int kVocabulary = 1024;
  for (const DType precision : precisions()) {
    const double more = arena_of_gpt(kTokens, 4 * kVocabulary, precision) -
                        arena_of_gpt(kTokens, kVocabulary, precision);
    EXPECT_LT(more, 0.25 * kTokens * 3 * kVocabulary * sizeof(float)) << to_string(precision);
  }
}

// Three steps; in the last two, leaves are shorter, or have no samples. Returns every state.
std::map<std::string, std::vector<float>> states_after_batch_norm(comm::Communicator* ranks,
                                                                  bool over_leaves,
                                                                  Recompute recompute) {
  nn::StepOptions options = small_model("resnet_small");
  options.batch_norm_over_leaves = over_leaves;
  Engine engine(model_graphs(options), {.batch = kBatch,
                                        .leaves = ranks == nullptr ? 1 : ranks->size(),
                                        .recompute = recompute,
                                        .seed = 3,
                                        .policy = {.measure = false},
                                        .ranks = ranks,
                                        .bucket_bytes = 5000});
  engine.join_ranks();
  for (std::int64_t step = 0; step < 3; ++step) {
    const std::int64_t samples =
        std::vector{kBatch, kBatch - 3, kBatch / 4}[static_cast<std::size_t>(step)];
    const auto [begin, end] = engine.slice_of(samples);
    engine.begin_step({step, samples, 0.05});
    engine.accumulate(Data(kBatch, static_cast<std::uint32_t>(step)).range(begin, end));
    EXPECT_TRUE(engine.reduce().finite);
    engine.update();
  }
  std::map<std::string, std::vector<float>> states;
  for (const StateStore::Entry& entry : engine.states().entries()) {
    const OwnedTensor tensor = engine.states().read(entry);
    states[entry.name].assign(tensor.as<float>().begin(), tensor.as<float>().end());
  }
  if (ranks != nullptr) ranks->barrier();
  return states;
}

TEST(Engine, BatchNormOverLeavesIsThatOfTheWholeBatchOnAnyNumberOfRanks) {
  const auto expected = states_after_batch_norm(nullptr, /*over_leaves=*/false, Recompute::kNone);
  const struct {
    int size;
    const char* transport;
    Recompute recompute;
  } cases[] = {{1, "shm", Recompute::kNone},
               {2, "shm", Recompute::kNone},
               {4, "shm", Recompute::kFull},
               {4, "gloo", Recompute::kNone}};
  std::map<int, std::map<std::string, std::vector<float>>> of_size;
  for (const auto& [size, transport, recompute] : cases) {
    comm::run_ranks(transport, size, [&](comm::Communicator& ranks) {
      const auto states = states_after_batch_norm(&ranks, /*over_leaves=*/true, recompute);
      for (const auto& [name, values] : expected) {
        for (std::size_t i = 0; i < values.size(); ++i) {
          ASSERT_NEAR(states.at(name)[i], values[i], 2e-5 * std::max(1.0f, std::abs(values[i])))
              << name << ", " << size << " ranks";
        }
      }
      // The same bits by any transport, and with activations computed again.
      if (!ranks.is_first()) return;
      const auto [same, is_new] = of_size.emplace(size, states);
      EXPECT_TRUE(is_new || same->second == states) << size << " ranks by " << transport;
    });
  }
}

TEST(Engine, BatchNormOverLeavesNeedsARankForEachLeaf) {
  nn::StepOptions options = small_model("resnet_small");
  options.batch_norm_over_leaves = true;
  for (const auto& [leaves, microbatch] : {std::pair(2, 0), std::pair(1, 4)}) {
    try {
      const Engine engine(model_graphs(options),
                          {.batch = kBatch, .leaves = leaves, .microbatch = microbatch});
      ADD_FAILURE();
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("needs a rank of its own"), std::string::npos);
    }
  }
}

TEST(Engine, RejectsLeavesThatAreNoPowerOfTwo) {
  EXPECT_THROW(make_engine("mlp", 3), Error);
  EXPECT_THROW(make_engine("mlp", 32), Error);
  EXPECT_THROW(make_engine("mlp", 2, 9), Error);
}

TEST(Engine, RejectsABatchThatMakesFewerLeaves) {
  nn::StepOptions options;
  options.sample = {4};
  options.outputs = 2;
  try {
    const Engine engine(model_graphs(options), {.batch = 17, .leaves = 16});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("makes only 9 leaves of 2 samples"), std::string::npos)
        << error.what();
  }
}

TEST(Engine, CountsProductsAndTheKernelsThatHoldSuch) {
  std::vector<std::string> products;
  for (const Op* op : all_ops()) {
    if (is_product(op->name)) products.push_back(op->name);
  }
  EXPECT_EQ(products, (std::vector<std::string>{"attention", "attention_backward", "conv2d",
                                                "conv2d_backward_data", "conv2d_backward_weights",
                                                "linear_cross_entropy",
                                                "linear_cross_entropy_backward", "matmul"}));
}

TEST(DefaultLeaves, DependOnBatchAndModelAlone) {
  EXPECT_EQ(default_leaves(128, 4e6, 670'000), 1);      // an mlp: little work for each weight
  EXPECT_EQ(default_leaves(64, 3.3e9, 11'173'962), 4);  // a ResNet-18 on 32x32 images
  EXPECT_EQ(default_leaves(1024, 3.3e9, 11'173'962), 8);
  EXPECT_EQ(default_leaves(1, 1e9, 1000), 1);
}

}  // namespace
}  // namespace concord::train
