#include "concord/runtime/executor.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/comm/coded_sum.h"
#include "concord/comm/low_rank_sum.h"
#include "concord/graph/printer.h"
#include "concord/ops/collective.h"
#include "concord/runtime/leaf_sums.h"
#include "concord/runtime/round_sums.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

// Index of the first element that is not finite, or -1. Padding counts: it must be zero.
template <typename T>
std::int64_t first_nonfinite(const T* data, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(static_cast<float>(data[i]))) return i;
  }
  return -1;
}

// The first element of f32 or bf16 that is not finite, as text; "" where there is none.
std::string find_nonfinite(const Value& value, const std::byte* bytes) {
  const auto find = [&]<typename T>(const T* data) -> std::string {
    const std::int64_t at = first_nonfinite(data, value.layout.stored_elements(value.type.shape));
    return at < 0 ? "" : fmt::format("stored element {}: {}", at, static_cast<float>(data[at]));
  };
  if (value.type.dtype == DType::kF32) return find(reinterpret_cast<const float*>(bytes));
  if (value.type.dtype == DType::kBF16) return find(reinterpret_cast<const BF16*>(bytes));
  return "";
}

constexpr std::size_t whole_pages(std::size_t bytes) {
  constexpr std::size_t kPage = 4096;
  return (bytes + kPage - 1) / kPage * kPage;
}

}  // namespace

Workspace::~Workspace() { release(); }

void Workspace::reserve(std::size_t bytes) {
  bool grows = bytes > bytes_;
  bytes_ = std::max(bytes, bytes_);
  if (is_planned_) return;
  if (readers_ != nullptr) grows = readers_->any_of(grows ? 1 : 0) != 0;
  if (!grows) return;
  release();  // before the larger one is there
  make();
}

void Workspace::allocate() {
  if (!is_planned_) return;
  is_planned_ = false;
  make();
}

void Workspace::make() {
  if (readers_ == nullptr) own_ = Buffer(bytes_);
  data_ = readers_ == nullptr ? own_.data() : readers_->share(bytes_);
}

void Workspace::release() {
  if (readers_ != nullptr && data_ != nullptr) readers_->unshare(data_);
  own_ = Buffer();
  data_ = nullptr;
}

void Executor::prepare(Program& program) {
  make_encoded_sums(program);
  if (program.sums_bytes > 0 && sums_.empty()) {
    sums_bytes_ = program.sums_bytes;
    sums_.resize(program.halves.size());
    for (std::size_t h = 0; h < sums_.size(); ++h) {
      const std::size_t bytes = program.halves[h].sums_bytes;
      if (program.in_rounds) {
        sums_[h].push_back(std::make_unique<RoundSums>(
            RoundSums::Sizes{bytes, program.halves[h].totals_bytes, sum_buffers_.rounds}, *ranks_));
        continue;
      }
      for (std::size_t s = 0; s < (h + 1 < sums_.size() ? most_steps_ : 1); ++s) {
        sums_[h].push_back(std::make_unique<LeafSums>(bytes, *ranks_, sum_buffers_.buffers,
                                                      sum_buffers_.most_height));
      }
    }
  }
  sums_bases_.resize(std::max(sums_bases_.size(), program.halves.size()));
  parts_bases_.resize(sums_bases_.size());
  for (std::size_t p = 0; p < program.pools.size(); ++p) {
    const Pool& pool = program.pools[p];
    const auto found = std::ranges::find_if(
        pools_, [&](const PoolMemory& memory) { return memory.pool.holds_like(pool); });
    if (found != pools_.end()) {
      found->pool.bytes = std::max(found->pool.bytes, whole_pages(pool.bytes));
      continue;
    }
    // One more, so that a message may come, or go, while the others are used.
    std::int64_t slots = most_at_once(most_.own, pool.first, pool.last);
    for (const ProgramStep& step : program.microbatch) {
      if (!step.message || step.message->is_send) continue;
      if (step.operands[0].part != static_cast<int>(p)) continue;
      slots = std::max(slots, most_on_their_way(most_, step.message->peer,
                                                step.message->sender_half, pool.first, pool.last));
    }
    pools_.push_back({pool, slots + (pool.is_received || pool.is_sent ? 1 : 0)});
    pools_.back().pool.bytes = whole_pages(pool.bytes);
  }
  for (const auto* steps : {&program.prologue, &program.microbatch, &program.update}) {
    for (const ProgramStep& step : *steps) {
      operands_.resize(std::max(operands_.size(), step.operands.size()));
      if (!step.collective) continue;
      comm::Communicator& ranks = ranks_along(step.collective->axis);
      check_ranks(*step.collective, ranks);
      along_[&*step.collective] = &ranks;
    }
  }
  for (std::size_t s = 0; s < most_steps_; ++s) {
    prologues_[&program].push_back({.offset = prologue_bytes_});
    prologue_bytes_ += whole_pages(program.prologue_bytes);
  }
  arena_bytes_ = std::max(arena_bytes_, whole_pages(program.arena_bytes));
  workspace_->reserve(arena_bytes_ + prologue_bytes_ + pools_bytes());
  workspace_->user = nullptr;  // prologues may have moved
  offloaded_bytes_ = std::max(offloaded_bytes_, program.offloaded_arena_bytes);
  if (!offloaded_folder_.empty()) allocate_offloaded(offloaded_folder_);
}

// By the program's encoded_sum nodes, of which all in a bucket are of one kind.
void Executor::make_encoded_sums(Program& program) {
  for (ProgramHalf& half : program.halves) {
    for (Bucket& bucket : half.buckets) {
      if (bucket.encoded.empty()) continue;
      std::vector<comm::CodedSum::Tensor> tensors;
      std::vector<comm::LowRankSum::Tensor> matrices;
      comm::EncodedSum::Encoders encoders{.rank = ranks_->rank(),
                                          .ranks = ranks_->size(),
                                          .height = sum_buffers_.most_height,
                                          .seed = sum_buffers_.seed};
      bool by_shares = false;
      for (const std::size_t s : bucket.encoded) {
        const Sum& sum = program.sums[s];
        const Node& node = program.graph.node(sum.encoding->node);
        const Layout& layout = program.graph.value(node.outputs[0]).layout;
        const auto stream = static_cast<std::uint32_t>(node.attributes.integer("stream"));
        encoders.count = node.attributes.integer("encoders");
        by_shares = node.attributes.integer("way") == 1;
        if (sum.encoding->rank > 0) {
          matrices.push_back({.offset = sum.place,
                              .shape = sum.type.shape,
                              .layout = layout,
                              .rank = sum.encoding->rank,
                              .stream = stream});
          continue;
        }
        const comm::CodecSpec spec = comm::parse_codec(node.attributes.text("codec"));
        tensors.push_back({.offset = sum.place,
                           .count = sum.stored_elements,
                           .codec = comm::make_codec(spec),
                           .of_sum = comm::make_codec(comm::codec_of_sums(spec)),
                           .stream = stream,
                           .padding = padding_of(layout, sum.type.shape)});
      }
      if (matrices.empty()) {
        encoded_sums_.push_back(
            std::make_unique<comm::CodedSum>(std::move(tensors), encoders, by_shares));
      } else {
        encoded_sums_.push_back(std::make_unique<comm::LowRankSum>(std::move(matrices), encoders));
      }
      bucket.coding = encoded_sums_.back().get();
    }
  }
}

// Of what encoders keep, which may lie elsewhere than in the step before.
void Executor::find_memories(const Program& program, const ProgramHalf& half) {
  const Bases bases = this->bases(program);
  const auto find = [&](const std::vector<Address>& addresses, std::vector<float*>& memories) {
    memories.clear();
    for (const Address& address : addresses) {
      memories.push_back(reinterpret_cast<float*>(resolve(bases, address)));
    }
  };
  for (const Bucket& bucket : half.buckets) {
    for (std::size_t i = 0; i < bucket.encoded.size(); ++i) {
      const SumEncoding& encoding = *program.sums[bucket.encoded[i]].encoding;
      comm::EncodedSum::Memory& memory = bucket.coding->memories()[i];
      find(encoding.memories, memory.own);
      find(encoding.sum_memories, memory.of_sum);
    }
  }
}

void Executor::allocate_offloaded(const std::filesystem::path& folder) {
  offloaded_folder_ = folder;
  if (offloaded_.bytes() == offloaded_bytes_) return;
  offloaded_ = FileMemory();  // before the larger one is there
  offloaded_ = FileMemory(folder, offloaded_bytes_);
}

Executor::Bases Executor::bases(const Program& program, std::int64_t microbatch) const {
  std::byte* const arena = workspace_->data();
  std::byte* const prologue = arena + arena_bytes_ + prologues_.at(&program)[slot()].offset;
  return {.of_regions = {states_.data(), states_.common_data(), states_.offloaded().data(),
                         states_.versions().data(age_read()), nullptr, nullptr, prologue, arena,
                         offloaded_.data(), nullptr},
          .of_sums = sums_bases_,
          .of_parts = parts_bases_,
          .executor = this,
          .program = &program,
          .microbatch = microbatch};
}

const Executor::PoolMemory& Executor::memory_of(const Pool& pool) const {
  const auto found = std::ranges::find_if(
      pools_, [&](const PoolMemory& memory) { return memory.pool.holds_like(pool); });
  CONCORD_CHECK(found != pools_.end());
  return *found;
}

std::byte* Executor::in_pool(const Pool& pool, std::int64_t microbatch) const {
  const PoolMemory& memory = memory_of(pool);
  std::byte* base = workspace_->data() + arena_bytes_ + prologue_bytes_;
  for (const PoolMemory* before = pools_.data(); before != &memory; ++before) {
    base += before->pool.bytes * static_cast<std::size_t>(before->slots);
  }
  return base + memory.pool.bytes * static_cast<std::size_t>(microbatch % memory.slots);
}

std::size_t Executor::pools_bytes() const {
  std::size_t bytes = 0;
  for (const PoolMemory& memory : pools_) {
    bytes += memory.pool.bytes * static_cast<std::size_t>(memory.slots);
  }
  return bytes;
}

const FileMemory& Executor::memory_of(const OffloadedRange& range) const {
  return range.address.region == Region::kOffloadedStates ? states_.offloaded() : offloaded_;
}

comm::Communicator& Executor::ranks_along(const std::string& axis) const {
  if (axis == "data") return *ranks_;
  const auto found = others_.find(axis);
  if (found != others_.end()) return *found->second;
  fail("a program has collectives along \"{}\": expected ranks to be joined along it", axis);
}

void Executor::run(const ProgramStep& step, const Bases& bases, bool alone) {
  resolve_operands(step, bases);
  const std::span<std::byte* const> operands{operands_.data(), step.operands.size()};
  if (step.kernel != nullptr) return step.kernel->run(operands);
  if (step.message) return deliver(step, bases, alone);
  if (alone) return run_alone(*step.collective, operands);
  meet(step);
}

void Executor::resolve_operands(const ProgramStep& step, const Bases& bases) {
  for (std::size_t i = 0; i < step.operands.size(); ++i) {
    operands_[i] = resolve(bases, step.operands[i]);
  }
}

void Executor::deliver(const ProgramStep& step, const Bases& bases, bool alone) {
  if (alone) return;
  if (step.operands[0].region == Region::kCarried) {
    return messages_.deliver(step, bases.microbatch, operands_[0]);
  }
  messages_.start(*step.message, operands_[0]);
}

// Of the operands in operands_.
void Executor::meet(const ProgramStep& step) {
  if (updating_) messages_.wait();  // it may read what other stages send
  comm::Communicator& ranks = *along_.at(&*step.collective);
  const std::span<std::byte* const> operands{operands_.data(), step.operands.size()};
  if (step.goes_on) {
    begun_[begun_count_++ % kMostBegun] = {&ranks, ranks.start(moving(*step.collective, operands))};
    if (begun_count_ - finished_count_ == kMostBegun) await(begun_count_);
    return;
  }
  concord::run(*step.collective, ranks, operands);
  if (&ranks != ranks_) return;
  for (const auto& of_half : sums_) {
    for (const auto& sums : of_half) sums->settle();
  }
}

Executor::~Executor() {
  try {
    await_all();  // they read and write what is this one's
  } catch (const std::exception&) {
    // They came to nothing, which whoever is told of it knows.
  }
}

void Executor::await(std::size_t count) {
  for (; finished_count_ < count; ++finished_count_) {
    const Begun& begun = begun_[finished_count_ % kMostBegun];
    begun.ranks->wait(begun.ticket);
  }
}

void Executor::await_all() {
  await(begun_count_);
  begun_count_ = finished_count_ = 0;
}

void Executor::run(const Program& program, const std::vector<ProgramStep>& steps, std::size_t begin,
                   std::size_t end, std::vector<double>* seconds, std::int64_t microbatch,
                   bool alone) {
  const Bases bases = this->bases(program, microbatch);
  const bool timed = seconds != nullptr || trace_ != nullptr;
  for (std::size_t s = begin; s < end; ++s) {
    const double start = timed ? now_seconds() : 0;
    for (const OffloadedRange& range : steps[s].prefetched) {
      memory_of(range).prefetch(range.address.offset, range.bytes);
    }
    if (!alone) await(steps[s].awaits);
    run(steps[s], bases, alone);
    for (const OffloadedRange& range : steps[s].released) {
      const FileMemory& memory = memory_of(range);
      if (range.is_read_again) {
        memory.release(range.address.offset, range.bytes);
      } else {
        memory.discard(range.address.offset, range.bytes);
      }
    }
    if (!timed) continue;
    const double stop = now_seconds();
    if (seconds != nullptr) (*seconds)[s] += stop - start;
    if (trace_ != nullptr) trace(steps[s], start, stop);
  }
}

void Executor::trace(const ProgramStep& step, double start, double stop) {
  if (!step.message) {
    trace_->add(Lane::kCompute, step.op, step.layer, start, stop);
    working_.has_computed = true;
  } else if (!step.message->is_send) {  // it has waited
    trace_half(start);
    working_.since = stop;
  }
}

void Executor::trace_half(double end) {
  if (working_.half == nullptr || !working_.has_computed) return;
  const comm::Label about(
      fmt::format("microbatch {}, chunk {}", working_.microbatch, working_.half->chunk));
  trace_->add(Lane::kPipeline, working_.half->kind, about.text(), working_.since, end);
  working_.has_computed = false;
}

void Executor::take_turn() {
  if (workspace_->user == this) return;
  workspace_->user = this;
  for (auto& [program, of_steps] : prologues_) {
    for (Prologue& prologue : of_steps) prologue.states_version = 0;
  }
}

void Executor::begin_step(const StepPlace& place) {
  steps_.clear();
  add_step(place);
}

void Executor::add_step(const StepPlace& place) {
  take_turn();
  CONCORD_CHECK(steps_.size() < most_steps_, "{} steps in flight", steps_.size());
  steps_.push_back({.number = ++begun_steps_, .place = place});
  turn_to(steps_.size() - 1);
  if (steps_.size() == 1) begun_count_ = finished_count_ = 0;
  // The last half adds to what the step before it has summed when that has been updated.
  for (std::size_t h = 0; h < sums_.size(); ++h) {
    if (h + 1 < sums_.size() || steps_.size() == 1) sums(h).clear(place);
  }
}

void Executor::turn_to(std::size_t step) {
  CONCORD_CHECK(step < steps_.size(), "step {} of {} in flight", step, steps_.size());
  turn_ = step;
}

StepSums& Executor::sums(std::size_t half) const {
  const auto& of_half = sums_[half];
  return *of_half[of_half.size() == 1 ? 0 : slot()];
}

// The updates of the steps before it that are in flight are still to come.
int Executor::age_read() const {
  return reads_newest_ ? 0 : std::max(0, older_ - static_cast<int>(turn_));
}

// Weight stashing: a microbatch goes backwards through the weights that it went forwards through.
void Executor::note_version() {
  std::int64_t& read = steps_[turn_].updates_read;
  const std::int64_t reads = states_.versions().updates(age_read());
  CONCORD_CHECK(read < 0 || read == reads, "a step reads weights after {} updates and after {}",
                read, reads);
  read = reads;
}

void Executor::run_prologue(Program& program) {
  take_turn();
  Prologue& last = prologues_.at(&program)[slot()];
  const bool same_inputs = last.step == step().number || !program.prologue_reads_step_inputs;
  const bool same_states = older_ == 0 ? last.states_version == states_.version()
                                       : last.states_version > 0 && last.step == step().number &&
                                             last.is_of_newest == reads_newest_;
  if (same_states && same_inputs) return;
  last = {last.offset, states_.version(), step().number, reads_newest_};
  const bool timed = timing_ != nullptr && timing_->program == &program;
  run(program, program.prologue, timed ? &timing_->prologue : nullptr);
  await_all();
}

void Executor::microbatch(Program& program, const MicrobatchPlace& place) {
  run_prologue(program);
  for (std::size_t h = 0; h < program.halves.size(); ++h) run_half(program, h, 0, place);
}

void Executor::begin_pipeline(const PipelineOrder& order, const Messages::Programs& programs) {
  order_ = &order;
  messages_.begin(
      order, programs,
      {.place =
           [this](const Program& program, const ProgramStep& step, std::int64_t microbatch) {
             return resolve(bases(program, microbatch), step.operands[0]);
           },
       .slots =
           [this](const Program& program, const ProgramStep& step) {
             const auto pool = static_cast<std::size_t>(step.operands[0].part);
             return memory_of(program.pools[pool]).slots;
           }});
}

void Executor::half(Program& program, int half, std::int64_t microbatch,
                    const MicrobatchPlace& place) {
  run_prologue(program);
  messages_.begin_half(half, microbatch);
  if (trace_ != nullptr) {
    working_ = {&order_->names[static_cast<std::size_t>(half)], microbatch, now_seconds()};
  }
  run_half(program, static_cast<std::size_t>(half), microbatch, place);
  if (trace_ != nullptr) trace_half(now_seconds());
  working_ = {};
  messages_.end_half(half, microbatch);
}

void Executor::run_half(Program& program, std::size_t number, std::int64_t microbatch,
                        const MicrobatchPlace& place) {
  if (states_.has_versions()) note_version();
  std::vector<double>* const seconds =
      timing_ != nullptr && timing_->program == &program ? &timing_->microbatch : nullptr;
  const ProgramHalf& half = program.halves[number];
  std::size_t done = number == 0 ? 0 : program.halves[number - 1].end;
  const bool summed = program.sums_bytes > 0;
  CONCORD_CHECK(!summed || program.sums_bytes == sums_bytes_,
                "programs of one step sum the same values");
  if (place.last_of_step) find_memories(program, half);
  if (summed) {
    sums_bases_[number] = sums(number).next();
    sums(number).begin_microbatch(place);
  }
  for (std::size_t b = 0; b < half.buckets.size(); ++b) {
    run(program, program.microbatch, done, half.bucket_ends[b], seconds, microbatch);
    done = half.bucket_ends[b];
    sums(number).add(half.buckets[b]);
  }
  run(program, program.microbatch, done, half.end, seconds, microbatch);
  await_all();
  if (summed) sums(number).end_microbatch();
}

// The step has ended before this rank's leaves, and the others go on: it adds nothing.
void Executor::stand_by(Program& program, std::size_t number, std::int64_t microbatch) {
  run_prologue(program);  // others read what it computes
  const ProgramHalf& half = program.halves[number];
  StepSums& sums = this->sums(number);
  sums.begin_standing_by();
  std::size_t done = number == 0 ? 0 : program.halves[number - 1].end;
  const auto stand_by_until = [&](std::size_t end) {
    for (; done < end; ++done) stand_by(program, program.microbatch[done], microbatch);
  };
  for (std::size_t b = 0; b < half.buckets.size(); ++b) {
    stand_by_until(half.bucket_ends[b]);
    sums.stand_by(half.buckets[b]);
  }
  stand_by_until(half.end);
  await_all();
  sums.end_microbatch();
}

void Executor::take_part(Program& program) {
  run_prologue(program);
  for (const ProgramStep& step : program.microbatch) stand_by(program, step, 0);
  await_all();
}

// Ranks along other axes have the same leaves as this one: none.
void Executor::stand_by(const Program& program, const ProgramStep& step, std::int64_t microbatch) {
  if (!step.collective || step.collective->axis != "data") return;
  const Bases bases = this->bases(program, microbatch);
  resolve_operands(step, bases);
  // Zero stands for what a microbatch would have computed. A summand may lie among the sums, which
  // others read: its total takes its place.
  const bool is_total = step.collective->op == ops::kAllReduce;
  if (is_total) operands_[0] = operands_[1];
  CONCORD_CHECK(is_total || step.operands[0].region != Region::kSums, "{} of a sum", step.op);
  if (is_total || step.operands[0].region == Region::kArena) {
    std::fill_n(operands_[0], step.collective->in_bytes(), std::byte{0});
  }
  meet(step);
}

// The sums are only read from here on (compile.cc: no value is computed over them).
void Executor::reduce(Program& program) {
  CONCORD_CHECK(!sums_.empty(), "a step that sums nothing");
  const bool in_pipeline = most_.microbatches > 0;
  while (!in_pipeline && sums(0).awaits_others()) stand_by(program, 0, 0);
  for (std::size_t h = 0; h < sums_.size(); ++h) {
    find_memories(program, program.halves[h]);
    sums_bases_[h] = const_cast<std::byte*>(sums(h).finish(program.halves[h].buckets));
    parts_bases_[h] = const_cast<std::byte*>(sums(h).parts());
  }
}

// For what is computed beside a step.
void Executor::take_sums(const Program& program) {
  for (std::size_t h = 0; h < sums_.size() && program.sums_bytes > 0; ++h) {
    parts_bases_[h] = sums_bases_[h] = sums(h).next();
  }
}

bool Executor::sums_are_finite(const Program& program, std::int64_t largest) const {
  const Bases bases = this->bases(program);
  for (const Sum& sum : program.sums) {
    if (sum.type.shape.elements() > largest) continue;
    const bool is_part = sum.part_bytes > 0;  // the others look at theirs
    const auto* data = reinterpret_cast<const float*>(
        resolve(bases, is_part || sum.encoding ? sum.part : sum.address));
    const std::int64_t count =
        is_part ? static_cast<std::int64_t>(sum.part_bytes / sizeof(float)) : sum.stored_elements;
    if (first_nonfinite(data, count) >= 0) return false;
  }
  return true;
}

void Executor::update(Program& program) {
  turn_to(0);
  begin_update();
  run_prologue(program);
  const bool timed = timing_ != nullptr && timing_->program == &program;
  updating_ = true;
  run(program, program.update, timed ? &timing_->update : nullptr);
  await_all();
  messages_.wait();
  // Others read what this rank has updated, and this rank may soon write what they have read.
  if (ranks_->has_common_memory()) ranks_->run(comm::barrier("updated weights"));
  updating_ = false;
  states_.changed();
  end_update();
}

std::int64_t Executor::staleness() const {
  const std::int64_t read = steps_[0].updates_read;
  return read < 0 ? 0 : states_.versions().updates(0) - read;
}

// It writes the newest version, and reads it.
void Executor::begin_update() {
  if (!states_.has_versions()) return;
  const std::int64_t updates = states_.versions().updates(0);
  const bool read_some = steps_[0].updates_read >= 0;  // not where the step ended before its leaves
  CONCORD_CHECK(!read_some || staleness() == std::min<std::int64_t>(older_, updates),
                "after {} updates one is of gradients {} updates old, expected {}", updates,
                staleness(), older_);
  states_.versions().keep();
  reads_newest_ = true;
}

void Executor::end_update() {
  reads_newest_ = false;
  if (steps_.size() == 1) return;
  steps_.erase(steps_.begin());
  turn_ = 0;
  if (!sums_.empty()) sums(sums_.size() - 1).clear(step().place);
}

double Executor::time_alone(const Program& program, const ProgramStep& step, int runs) {
  CONCORD_CHECK(runs >= 1);
  // Other ranks read and write the sum of the last step.
  take_sums(program);
  const Bases bases = this->bases(program);
  std::vector<double> seconds;
  for (int i = 0; i < runs; ++i) {
    const double start = now_seconds();
    run(step, bases, /*alone=*/true);
    seconds.push_back(now_seconds() - start);
  }
  std::ranges::nth_element(seconds, seconds.begin() + runs / 2);
  return seconds[static_cast<std::size_t>(runs / 2)];
}

std::string Executor::find_nonfinite(Program& program) {
  run_prologue(program);
  take_sums(program);
  const Bases bases = this->bases(program);
  for (ProgramStep& step : program.microbatch) {
    run(step, bases, /*alone=*/true);
    const Node& node = program.graph.node(step.node);
    for (std::size_t o = 0; o < node.outputs.size(); ++o) {
      const Value& value = program.graph.value(node.outputs[o]);
      const std::size_t inputs = step.collective ? 1 : node.inputs.size();
      const std::string found = concord::find_nonfinite(value, operands_[inputs + o]);
      if (found.empty()) continue;
      return fmt::format("{} of layer {} (output {}, {}, {})", node.op,
                         node.name.empty() ? "-" : node.name, o, to_string(value.type), found);
    }
  }
  return "";
}

}  // namespace concord
