// In the steady state a training step allocates nothing on the heap. oneDNN builds its argument map
// anew in every execution of a primitive, which Concord cannot prevent; what it allocates is told
// apart by the caller's address and not counted.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <new>

#include "concord/nn/step.h"
#include "concord/train/engine.h"
#include "concord/train/trainer.h"

namespace {

std::atomic<bool> counting = false;
std::atomic<int> allocations = 0;
std::atomic<int> library_allocations = 0;

bool is_of_onednn(const void* caller) {
  Dl_info info;
  return dladdr(caller, &info) != 0 && info.dli_fname != nullptr &&
         std::strstr(info.dli_fname, "dnnl") != nullptr;
}

void* allocate(std::size_t bytes, const void* caller) noexcept {
  if (counting) ++(is_of_onednn(caller) ? library_allocations : allocations);
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

int allocations_of_steps(const std::string& model) {
  nn::StepOptions options;
  options.model = {.name = model,
                   .hidden = {32},
                   .dropout = model == "mlp" ? 0.1 : 0.0,
                   .width = 8,
                   .blocks = {1, 1}};
  options.sample = {1, 28, 28};
  options.outputs = 10;
  options.optimizer = {.name = "adamw", .weight_decay = 0.01, .clip_norm = 1.0};
  Engine engine(model_graphs(options),
                {.batch = 24, .leaves = 4, .microbatch = 4, .policy = {.measure = false}});
  const std::vector<float> features(24 * 28 * 28, 0.5f);
  const std::vector<std::int32_t> labels(24, 3);
  for (int step = 0; step < 4; ++step) {
    counting = step >= 2;  // the first steps fill pools
    engine.begin_step({.step = step, .samples = 24, .learning_rate = 0.001});
    engine.accumulate({.count = 24, .features = features, .labels = labels});
    EXPECT_TRUE(engine.reduce().finite);
    engine.update();
    counting = false;
  }
  return allocations.exchange(0);
}

TEST(SteadyState, TrainingStepAllocatesNothing) {
  for (const char* model : {"mlp", "lenet", "cnn", "resnet_small"}) {
    EXPECT_EQ(allocations_of_steps(model), 0) << model;
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
