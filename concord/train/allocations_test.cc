// In the steady state a training step allocates nothing on the heap. oneDNN builds its argument map
// anew in every execution of a primitive, and Gloo an object for every message, which Concord
// cannot prevent; what these allocate is told apart by the caller's address and not counted.
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>
#include <vector>

#include "concord/comm/test_ranks.h"
#include "concord/nn/step.h"
#include "concord/ops/collective.h"
#include "concord/train/engine.h"
#include "concord/train/trainer.h"

namespace {

std::atomic<bool> counting = false;
std::atomic<int> allocations = 0;
std::atomic<int> library_allocations = 0;

bool is_of_library(const void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr &&
         (std::strstr(info.dli_fname, "libdnnl") != nullptr ||
          std::strstr(info.dli_fname, "libgloo") != nullptr);
}

void* allocate(std::size_t bytes, const void* caller) noexcept {
  if (counting) ++(is_of_library(caller) ? library_allocations : allocations);
  return std::malloc(bytes == 0 ? 1 : bytes);
}

void* not_null(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

}  // namespace

// Every form that pairs with a form of delete below: the sanitizers' own would not. None is
// inlined: the return address would be another caller's, and the compiler would see only one half
// of a pair.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return not_null(allocate(bytes, __builtin_return_address(0)));
}
[[gnu::noinline]] void* operator new[](std::size_t bytes) {
  return not_null(allocate(bytes, __builtin_return_address(0)));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, __builtin_return_address(0));
}
[[gnu::noinline]] void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept {
  return allocate(bytes, __builtin_return_address(0));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace concord::train {
namespace {

constexpr std::int64_t kBatch = 24;

// `ranks`: null for one alone.
std::unique_ptr<Engine> make_engine(const nn::ModelOptions& model, comm::Communicator* ranks,
                                    std::int64_t leaves, std::int64_t microbatch,
                                    const std::filesystem::path& offload = {}) {
  nn::StepOptions options;
  options.model = model;
  options.sample = {1, 28, 28};
  options.outputs = 10;
  options.optimizer = {.name = "adamw", .weight_decay = 0.01, .clip_norm = 1.0};
  EngineOptions of_engine{.batch = kBatch,
                          .leaves = leaves,
                          .microbatch = microbatch,
                          .policy = {.measure = false},
                          .ranks = ranks,
                          .bucket_bytes = 100'000};
  of_engine.offload_dir = offload;
  of_engine.offload_states = of_engine.offload_activations = !offload.empty();
  auto engine = std::make_unique<Engine>(model_graphs(options), of_engine);
  engine->join_ranks();
  return engine;
}

void run_step(Engine& engine, int step) {
  static const std::vector<float> features(kBatch * 28 * 28, 0.5f);
  static const std::vector<std::int32_t> labels(kBatch, 3);
  const auto [begin, end] = engine.slice_of(kBatch);
  const auto count = static_cast<std::size_t>(end - begin);
  engine.begin_step({.step = step, .samples = kBatch, .learning_rate = 0.001});
  engine.accumulate({.count = end - begin,
                     .features = std::span(features).first(count * 28 * 28),
                     .labels = std::span(labels).first(count)});
  EXPECT_TRUE(engine.reduce().finite);
  engine.update();
}

// Of each of some steps.
std::vector<int> allocations_of_steps(const std::string& model, comm::Communicator* ranks = nullptr,
                                      const std::filesystem::path& offload = {},
                                      std::int64_t leaves = 4, std::int64_t microbatch = 4) {
  const auto engine = make_engine({.name = model,
                                   .hidden = {64, 32},
                                   .dropout = model == "mlp" ? 0.1 : 0.0,
                                   .width = 8,
                                   .blocks = {1, 1}},
                                  ranks, leaves, microbatch, offload);
  EXPECT_EQ(engine->offloaded_bytes() > 0, !offload.empty());
  constexpr int kSteps = 10, kFirst = 2;  // before these, steps fill pools
  const auto meet = [&] {
    if (ranks != nullptr) ranks->barrier();
  };
  std::vector<int> of_steps;
  for (int step = 0; step < kSteps; ++step) {
    meet();
    const int before = allocations;
    meet();
    counting = step >= kFirst;
    run_step(*engine, step);
    meet();
    counting = false;
    if (step >= kFirst) of_steps.push_back(allocations - before);
  }
  return of_steps;
}

TEST(SteadyState, TrainingStepAllocatesNothing) {
  for (const char* model : {"mlp", "lenet", "cnn", "resnet_small"}) {
    EXPECT_THAT(allocations_of_steps(model), testing::Each(0)) << model;
    allocations = 0;
  }
}

// Of the one model the states are large enough, of the other activations.
TEST(SteadyState, StepWithStatesOrActivationsInAFileAllocatesNothing) {
  const std::filesystem::path folder = std::filesystem::current_path();
  EXPECT_THAT(allocations_of_steps("mlp", nullptr, folder), testing::Each(0));
  EXPECT_THAT(allocations_of_steps("resnet_small", nullptr, folder, 2, 12), testing::Each(0));
  allocations = 0;
}

TEST(SteadyState, StepOfSeveralRanksAllocatesNothing) {
  comm::run_ranks("shm", 2, [](comm::Communicator& ranks) {
    EXPECT_THAT(allocations_of_steps("mlp", &ranks), testing::Each(0));
  });
  allocations = 0;
  // Beside the steps a thread of each rank asks the store, some times a second, whether a rank has
  // ended, which allocates a little.
  comm::run_ranks("gloo", 2, [](comm::Communicator& ranks) {
    const std::vector<int> of_steps = allocations_of_steps("mlp", &ranks);
    EXPECT_GT(std::ranges::count(of_steps, 0), 4) << testing::PrintToString(of_steps);
  });
  allocations = 0;
}

// Sums, parts moved between ranks and neighbours' edges, in a microbatch, in f32 and bf16; in
// memory that ranks read of each other, and in memory of each one's own.
TEST(SteadyState, CollectivesOfAProgramAllocateNothing) {
  const auto run_steps = [](comm::Communicator& ranks, bool shared) {
    const Mesh mesh{{{"data", 2}, {"tensor", 2}}};
    comm::Communicator& tensor = ranks.split(mesh, "tensor");
    const AxisPlace axis{"tensor", 2, tensor.rank()};
    Graph graph;
    GraphBuilder b(graph);
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const std::string name(to_string(dtype));
      ValueId x = b.input(name, {dtype, {40, 60, 2}});
      x = ops::all_reduce(b, ops::all_reduce(b, x, axis), axis, /*maximum=*/true);
      x = ops::place(b, x, axis, Placement::partial(), Placement::split(1, {3}));
      x = ops::place(b, x, axis, Placement::split(1, {3}), Placement::split(0));
      x = ops::halo_sum(b, ops::halo_exchange(b, x, axis, 0, 1, 2), axis, 0, 1, 2);
      b.output("of " + name, ops::place(b, x, axis, Placement::split(0), Placement::replicate()));
    }
    KernelPolicy policy{.measure = false};
    Graph lowered = lower(graph, policy);
    StateStore states(lowered);
    Executor executor(states, std::make_shared<Workspace>(shared ? &tensor : nullptr));
    comm::Alone alone;
    executor.join(alone, {}, {{"tensor", &tensor}});
    Program program = compile(std::move(lowered), policy, states);
    EXPECT_EQ(program.microbatch.size(), 14);
    executor.prepare(program);
    executor.share_memory();
    const auto run = [&] {
      executor.begin_step();
      executor.microbatch(program, {.last_of_step = true});
    };
    for (int step = 0; step < 3; ++step) run();
    ranks.barrier();
    counting = true;
    ranks.barrier();
    for (int step = 0; step < 10; ++step) run();
    ranks.barrier();
    counting = false;
    ranks.barrier();
  };
  for (const bool shared : {false, true}) {
    comm::run_ranks("shm", 4, [&](comm::Communicator& ranks) { run_steps(ranks, shared); });
    EXPECT_EQ(allocations.exchange(0), 0);
  }
}

// What a rank has for communication holds its gradient, which others read where it lies or which
// is sent from there.
TEST(SteadyState, CommunicationTakesHardlyMoreMemoryThanTheGradient) {
  const std::pair<const char*, nn::ModelOptions> cases[] = {
      {"shm", {.name = "lenet"}},
      {"shm", {.name = "mlp", .hidden = {3000, 2000}}},
      {"gloo", {.name = "mlp", .hidden = {3000, 2000}}}};
  for (const auto& [transport, model] : cases) {
    for (const int size : {2, 4}) {
      comm::run_ranks(transport, size, [&](comm::Communicator& ranks) {
        const auto engine = make_engine(model, &ranks, size, 0);
        for (int step = 0; step < 2; ++step) run_step(*engine, step);
        const double share = static_cast<double>(ranks.bytes()) /
                             static_cast<double>(engine->training_program().sums_bytes);
        EXPECT_GE(share, 1) << transport << ", " << size << " ranks";
        EXPECT_LE(share, 1.1) << transport << ", " << size << " ranks";
      });
    }
  }
}

// Nor does what the trainer does around a step: the loader, the schedule, measuring the speed.
TEST(SteadyState, TrainerAllocatesNothingBetweenRecords) {
  class Counting : public TrainObserver {
    void stepped(const Progress& progress) override {
      counting = progress.step >= 10 && progress.step < 30;
    }
  } observer;
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "concord_trainer_allocations";
  std::filesystem::remove_all(folder);
  train(parse_config("[data]\nkind = \"synthetic\"\nsamples = 320\n"
                     "[train]\nbatch = 8\nmax_steps = 35\nlog_every = 0\nkernels = \"default\"\n",
                     "test.toml", std::vector{"output.dir=" + folder.string()}),
        {}, observer);
  std::filesystem::remove_all(folder);
  EXPECT_EQ(allocations.exchange(0), 0);
}

TEST(SteadyState, CountingSeesAnAllocation) {
  counting = true;
  std::vector<int>* values = new std::vector<int>(10);
  counting = false;
  delete values;
  EXPECT_EQ(allocations.exchange(0), 2);
}

}  // namespace
}  // namespace concord::train
