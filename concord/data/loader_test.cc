#include "concord/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>

#include "concord/data/synthetic.h"
#include "concord/data/test_files.h"

namespace concord {
extern std::atomic<std::int64_t> heap_allocations;  // tests/heap_allocations.cc
}

namespace concord::data {
namespace {

using testing::HasSubstr;

const AugmentOptions kAugment{.crop_padding = 2, .horizontal_flip = true, .cutout = 4};

// Samples [1] with value and label `index`; read() calls `on_read` first.
class Numbers final : public Dataset {
 public:
  Numbers(std::int64_t size, std::function<void(std::int64_t)> on_read)
      : Dataset({1}, targets(size)), on_read_(std::move(on_read)) {}
  void read(std::int64_t index, std::span<float> features) const override {
    on_read_(index);
    features[0] = static_cast<float>(index);
  }

 private:
  static Targets targets(std::int64_t size) {
    std::vector<std::int64_t> labels;
    for (std::int64_t i = 0; i < size; ++i) labels.push_back(i);
    return class_targets(labels, static_cast<int>(size), "numbers");
  }
  std::function<void(std::int64_t)> on_read_;
};

// Everything the steps deliver, in one row.
std::vector<float> contents(const Dataset& dataset, const LoaderOptions& options) {
  Loader loader(dataset, Sampler(dataset.size(), 48, 9, true),
                Augmentation(kAugment, {}, dataset.sample_shape(), 9), options);
  std::vector<float> all;
  while (loader.has_next()) {
    const Batch& batch = loader.next();
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(batch.features.data()) % 64, 0u);
    all.push_back(static_cast<float>(batch.step));
    all.push_back(static_cast<float>(batch.epoch));
    all.push_back(static_cast<float>(batch.count));
    all.insert(all.end(), batch.features.begin(), batch.features.end());
    all.insert(all.end(), batch.labels.begin(), batch.labels.end());
    all.insert(all.end(), batch.targets.begin(), batch.targets.end());
    all.insert(all.end(), batch.indices.begin(), batch.indices.end());
  }
  return all;
}

TEST(Loader, DeliversTheSameBitsForAnyNumberOfThreads) {
  // Samples of 3 x 48 x 48 floats: a batch is cut into several chunks.
  for (const TargetType type : {TargetType::kClass, TargetType::kValues}) {
    const auto dataset = open_synthetic(
        {.sample_shape = {3, 48, 48}, .size = 100, .target_type = type, .target_width = 3});
    const std::vector<float> expected = contents(*dataset, {.threads = 0, .end_step = 8});
    for (const int threads : {1, 2, 5}) {
      for (const int prefetch : {1, 3}) {
        EXPECT_EQ(contents(*dataset, {.threads = threads, .prefetch = prefetch, .end_step = 8}),
                  expected);
      }
    }
  }
}

TEST(Loader, ResumesInTheMiddleOfAnEpoch) {
  const auto dataset = open_synthetic({.sample_shape = {3, 8, 8}, .size = 100});
  std::vector<float> pieces = contents(*dataset, {.end_step = 4});
  const std::vector<float> rest = contents(*dataset, {.first_step = 4, .end_step = 7});
  pieces.insert(pieces.end(), rest.begin(), rest.end());
  EXPECT_EQ(pieces, contents(*dataset, {.end_step = 7}));
}

TEST(Loader, EvaluationSeesEverySampleOnceAndShortBatchesEndInZeros) {
  const Numbers dataset(10, [](std::int64_t) {});
  Loader loader(dataset, Sampler(10, 4, 0, false), Augmentation::none({{1}, {2}}, {1}),
                {.threads = 2, .end_step = 3});
  std::vector<float> features;
  for (int step = 0; step < 3; ++step) {
    const Batch& batch = loader.next();
    features.insert(features.end(), batch.features.begin(), batch.features.end());
    ASSERT_EQ(batch.labels.size(), static_cast<std::size_t>(batch.count));
    if (step == 2) {
      ASSERT_EQ(batch.count, 2);
      EXPECT_EQ(batch.features.data()[2], 0.0f);
      EXPECT_EQ(batch.features.data()[3], 0.0f);
      EXPECT_EQ(batch.labels.data()[3], 0);
    }
  }
  EXPECT_FALSE(loader.has_next());
  EXPECT_THAT(features, testing::ElementsAre(-.5f, 0, .5f, 1, 1.5f, 2, 2.5f, 3, 3.5f, 4));
}

TEST(Loader, ABatchIsNotTouchedWhileItIsHeld) {
  const Numbers dataset(1000, [](std::int64_t) {});
  Loader loader(dataset, Sampler(1000, 8, 0, false), Augmentation::none({}, {1}),
                {.threads = 3, .prefetch = 1, .end_step = 125});
  for (std::int64_t step = 0; step < 125; ++step) {
    const Batch& batch = loader.next();
    if (step % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    for (std::size_t i = 0; i < 8; ++i) {
      ASSERT_EQ(batch.features[i], static_cast<float>(step * 8) + static_cast<float>(i));
    }
  }
}

TEST(Loader, SteadyStateDoesNotAllocate) {
  const auto dataset = open_synthetic({.sample_shape = {3, 16, 16}, .size = 100});
  for (const int threads : {0, 3}) {
    Loader loader(*dataset, Sampler(100, 16, 0, true),
                  Augmentation(kAugment, {}, dataset->sample_shape(), 0), {.threads = threads});
    for (int step = 0; step < 20; ++step) loader.next();
    const std::int64_t before = heap_allocations;
    for (int step = 0; step < 200; ++step) loader.next();
    EXPECT_EQ(heap_allocations - before, 0) << threads << " threads";
  }
}

TEST(Loader, AnErrorReachesTheStepItBelongsToAndStays) {
  for (const int threads : {0, 1, 3}) {
    const Numbers dataset(20, [](std::int64_t index) {
      if (index >= 9) fail("sample {} is corrupt", index);
    });
    Loader loader(dataset, Sampler(20, 4, 0, false), Augmentation::none({}, {1}),
                  {.threads = threads});
    EXPECT_EQ(loader.next().step, 0);
    EXPECT_EQ(loader.next().step, 1);
    EXPECT_EQ(error_of([&] { loader.next(); }), "sample 9 is corrupt");
    EXPECT_EQ(error_of([&] { loader.next(); }), "sample 9 is corrupt");
  }
}

TEST(Loader, EndsWhateverItsThreadsAreDoing) {
  for (int delay = 0; delay < 5; ++delay) {
    const Numbers slow(
        1000, [](std::int64_t) { std::this_thread::sleep_for(std::chrono::microseconds(100)); });
    Loader loader(slow, Sampler(1000, 10, 0, true), Augmentation::none({}, {1}),
                  {.threads = 4, .prefetch = 2});
    if (delay > 1) loader.next();
    std::this_thread::sleep_for(std::chrono::milliseconds(delay * 2));
  }
}

TEST(Loader, CountsTheSecondsThatItsConsumerWaited) {
  const Numbers slow(
      8, [](std::int64_t) { std::this_thread::sleep_for(std::chrono::milliseconds(5)); });
  for (const int threads : {0, 1}) {
    Loader loader(slow, Sampler(8, 8, 0, true), Augmentation::none({}, {1}),
                  {.threads = threads, .prefetch = 1});
    loader.wait_until_ahead();
    EXPECT_EQ(loader.wait_seconds(), 0);
    loader.next();
    loader.next();
    EXPECT_GE(loader.wait_seconds(), 0.02) << threads << " threads";
  }
  const Numbers quick(8, [](std::int64_t) {});
  Loader loader(quick, Sampler(8, 8, 0, true), Augmentation::none({}, {1}), {.prefetch = 2});
  loader.wait_until_ahead();
  loader.next();
  loader.next();
  EXPECT_EQ(loader.wait_seconds(), 0);
}

TEST(Loader, RefusesOptionsOutOfRange) {
  const Numbers dataset(8, [](std::int64_t) {});
  const auto error = [&](const LoaderOptions& options) {
    return error_of(
        [&] { Loader(dataset, Sampler(8, 8, 0, true), Augmentation::none({}, {1}), options); });
  };
  EXPECT_THAT(error({.threads = -1}), HasSubstr("threads = -1"));
  EXPECT_THAT(error({.prefetch = 0}), HasSubstr("prefetch = 0"));
  EXPECT_THAT(error({.first_step = 3, .end_step = 2}), HasSubstr("steps 3 to 2"));
}

}  // namespace
}  // namespace concord::data
