#include "concord/data/loader.h"

#include <algorithm>
#include <system_error>

#include "concord/base/clock.h"
#include "concord/base/error.h"

namespace concord::data {
namespace {

// Small enough that threads share a batch evenly, large enough that claiming costs nothing.
constexpr std::int64_t kChunkElements = 1 << 16;

template <typename T>
std::span<T> view(const Buffer& buffer, std::size_t count) {
  return {reinterpret_cast<T*>(buffer.data()), count};
}

// The first `count` of the elements of `buffer`; the others are set to zero.
template <typename T>
std::span<T> view_and_clear_rest(const Buffer& buffer, std::size_t count) {
  const std::span<T> all = view<T>(buffer, buffer.bytes() / sizeof(T));
  std::ranges::fill(all.subspan(count), T{});
  return all.first(count);
}

const LoaderOptions& checked(const LoaderOptions& options) {
  if (options.threads < 0) {
    fail("loader threads = {}: expected 0 (none) or a positive number", options.threads);
  }
  if (options.prefetch < 1) {
    fail("loader prefetch = {}: expected at least 1 batch", options.prefetch);
  }
  if (options.first_step < 0 || options.end_step < options.first_step) {
    fail("loader steps {} to {}: expected 0 <= first <= end", options.first_step, options.end_step);
  }
  for (const Slice& slice : options.slices) {
    if (slice.begin >= 0 && slice.end >= slice.begin) continue;
    fail("loader slice {} to {}: expected 0 <= begin <= end", slice.begin, slice.end);
  }
  return options;
}

// What `slice` has of a batch of `count`.
Slice part_of(const Slice& slice, std::int64_t count) {
  return {std::min(slice.begin, count), std::min(slice.end, count)};
}

std::int64_t slots(const LoaderOptions& options) {
  return options.threads == 0 ? 1 : options.prefetch + 1;
}

}  // namespace

std::size_t Loader::bytes(const Dataset& dataset, std::int64_t samples,
                          const LoaderOptions& options) {
  // Features and targets are floats, tokens and labels 32-bit integers.
  const std::int64_t targets = dataset.target_type() == TargetType::kClass
                                   ? dataset.labels_per_sample()
                                   : dataset.target_width();
  return static_cast<std::size_t>(slots(options) * samples *
                                  (dataset.sample_shape().elements() + targets)) *
         sizeof(float);
}

Loader::Loader(const Dataset& dataset, Sampler sampler, Augmentation augmentation,
               const LoaderOptions& options)
    : dataset_(dataset),
      sampler_(std::move(sampler)),
      augmentation_(std::move(augmentation)),
      options_(checked(options)),
      elements_(static_cast<std::size_t>(dataset.sample_shape().elements())),
      labels_(static_cast<std::size_t>(dataset.labels_per_sample())),
      chunk_(std::max<std::int64_t>(1, kChunkElements / dataset.sample_shape().elements())),
      slot_count_(slots(options)),
      slots_(std::make_unique<Slot[]>(static_cast<std::size_t>(slot_count_))),
      next_step_(options.first_step),
      claim_step_(options.first_step),
      released_(options.first_step) {
  CONCORD_CHECK(sampler_.size() == dataset.size());
  CONCORD_CHECK(augmentation_.sample_shape() == dataset.sample_shape());
  for (std::int64_t i = 0; i < slot_count_; ++i) allocate(slots_[static_cast<std::size_t>(i)]);
  const auto threads = static_cast<std::size_t>(options.threads);
  raw_.resize(std::max<std::size_t>(1, threads) * elements_);
  try {
    for (std::size_t i = 0; i < threads; ++i) {
      threads_.emplace_back([this, i] { work(std::span(raw_).subspan(i * elements_, elements_)); });
    }
  } catch (const std::system_error& error) {
    stop();
    fail("cannot start {} loader threads (data.loader_threads): {}", threads, error.what());
  }
}

Loader::~Loader() { stop(); }

void Loader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  space_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Loader::allocate(Slot& slot) const {
  std::int64_t places = 0;
  for (const Slice& slice : options_.slices) {
    const Slice part = part_of(slice, sampler_.batch());
    places += part.end - part.begin;
  }
  const auto batch = static_cast<std::size_t>(places);
  if (dataset_.sample_type() == SampleType::kTokens) {
    slot.tokens = Buffer(batch * elements_ * sizeof(std::int32_t));
  } else {
    slot.features = Buffer(batch * elements_ * sizeof(float));
  }
  if (dataset_.target_type() == TargetType::kClass) {
    slot.labels = Buffer(batch * labels_ * sizeof(std::int32_t));
  } else {
    slot.targets =
        Buffer(batch * static_cast<std::size_t>(dataset_.target_width()) * sizeof(float));
  }
  slot.indices.reserve(batch);
}

// Prepares a free slot for the samples of `step`.
void Loader::open(Slot& slot, std::int64_t step) {
  const std::span<const std::int64_t> indices = sampler_.indices(step);
  slot.indices.clear();
  for (const Slice& slice : options_.slices) {
    const Slice part = part_of(slice, static_cast<std::int64_t>(indices.size()));
    slot.indices.insert(slot.indices.end(), indices.begin() + part.begin,
                        indices.begin() + part.end);
  }
  const std::size_t count = slot.indices.size();
  Batch& batch = slot.batch;
  batch.step = step;
  batch.step_count = static_cast<std::int64_t>(indices.size());
  batch.epoch = sampler_.epoch(step);
  batch.count = static_cast<std::int64_t>(count);
  if (dataset_.sample_type() == SampleType::kTokens) {
    batch.tokens = view_and_clear_rest<std::int32_t>(slot.tokens, count * elements_);
  } else {
    batch.features = view_and_clear_rest<float>(slot.features, count * elements_);
  }
  if (dataset_.target_type() == TargetType::kClass) {
    batch.labels = view_and_clear_rest<std::int32_t>(slot.labels, count * labels_);
  } else {
    batch.targets = view_and_clear_rest<float>(
        slot.targets, count * static_cast<std::size_t>(dataset_.target_width()));
  }
  batch.indices = slot.indices;
  // One chunk of nothing where there is nothing to read.
  slot.left.store(std::max<std::int64_t>(1, (batch.count + chunk_ - 1) / chunk_),
                  std::memory_order_relaxed);
}

void Loader::read_samples(const Chunk& chunk, std::span<float> raw) const {
  const Batch& batch = chunk.slot->batch;
  const auto width = static_cast<std::size_t>(dataset_.target_width());
  for (auto i = static_cast<std::size_t>(chunk.begin); i < static_cast<std::size_t>(chunk.end);
       ++i) {
    const std::int64_t index = batch.indices[i];
    if (dataset_.sample_type() == SampleType::kTokens) {
      const std::span<std::int32_t> tokens = batch.tokens.subspan(i * elements_, elements_);
      const std::span<std::int32_t> labels = batch.labels.subspan(i * labels_, labels_);
      dataset_.read_tokens(index, tokens, labels);
      if (options_.masking) options_.masking->apply(batch.epoch, index, tokens, labels);
      continue;
    }
    const std::span<float> features = batch.features.subspan(i * elements_, elements_);
    if (augmentation_.is_none()) {
      dataset_.read(index, features);
    } else {
      dataset_.read(index, raw);
      augmentation_.apply(batch.epoch, index, raw, features);
    }
    if (dataset_.target_type() == TargetType::kClass) {
      batch.labels[i] = dataset_.label(index);
    } else {
      dataset_.read_target(index, batch.targets.subspan(i * width, width));
    }
  }
}

// Fills a chunk; whoever fills the last one of a batch makes it ready.
void Loader::fill(const Chunk& chunk, std::span<float> raw) {
  Slot& slot = *chunk.slot;
  try {
    read_samples(chunk, raw);
  } catch (...) {
    // Of several errors in a batch the one of its first chunk is kept, whoever meets it first.
    const std::lock_guard lock(mutex_);
    if (!slot.error || chunk.begin < slot.error_sample) {
      slot.error = std::current_exception();
      slot.error_sample = chunk.begin;
    }
  }
  if (slot.left.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  {
    const std::lock_guard lock(mutex_);
    slot.ready = true;
  }
  ready_.notify_one();
}

// Waits until the slot of `step` is free; false when the loader stops.
bool Loader::wait_for_space(std::int64_t step) {
  std::unique_lock lock(mutex_);
  space_.wait(lock, [&] { return stopping_ || step - released_ < slot_count_; });
  return !stopping_;
}

// The next chunk of work, or nothing when all steps are done or the loader stops.
std::optional<Loader::Chunk> Loader::claim() {
  const std::lock_guard lock(claim_mutex_);
  if (claim_step_ == options_.end_step || !wait_for_space(claim_step_)) return std::nullopt;
  Slot& slot = slot_of(claim_step_);
  if (claim_begin_ == 0) open(slot, claim_step_);
  const Chunk chunk{&slot, claim_begin_, std::min(claim_begin_ + chunk_, slot.batch.count)};
  claim_begin_ = chunk.end;
  if (claim_begin_ == slot.batch.count) {
    claim_begin_ = 0;
    ++claim_step_;
  }
  return chunk;
}

void Loader::work(std::span<float> raw) {
  while (const std::optional<Chunk> chunk = claim()) fill(*chunk, raw);
}

void Loader::wait_until_ready(Slot& slot) {
  std::unique_lock lock(mutex_);
  if (slot.ready) return;
  const double start = now_seconds();
  ready_.wait(lock, [&] { return slot.ready; });
  wait_seconds_ += now_seconds() - start;
}

void Loader::wait_until_ahead() {
  const double waited = wait_seconds_;
  const std::int64_t end = std::min(next_step_ + options_.prefetch, options_.end_step);
  for (std::int64_t step = next_step_; !threads_.empty() && step < end; ++step) {
    wait_until_ready(slot_of(step));
  }
  wait_seconds_ = waited;
}

const Batch& Loader::next() {
  CONCORD_CHECK(has_next());
  if (holds_batch_) {
    {
      const std::lock_guard lock(mutex_);
      slot_of(released_).ready = false;
      ++released_;
    }
    holds_batch_ = false;
    space_.notify_one();
  }
  Slot& slot = slot_of(next_step_);
  if (threads_.empty() && !slot.ready) {
    const double start = now_seconds();
    open(slot, next_step_);
    slot.left.store(1, std::memory_order_relaxed);
    fill({&slot, 0, slot.batch.count}, raw_);
    wait_seconds_ += now_seconds() - start;
  }
  wait_until_ready(slot);
  if (slot.error) std::rethrow_exception(slot.error);
  holds_batch_ = true;
  ++next_step_;
  return slot.batch;
}

}  // namespace concord::data
