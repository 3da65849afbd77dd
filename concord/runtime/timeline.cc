#include "concord/runtime/timeline.h"

#include <algorithm>
#include <deque>

#include "concord/base/error.h"
#include "concord/comm/leaf_tree.h"
#include "concord/ops/collective.h"

namespace concord {
namespace {

using Kind = comm::Operation::Kind;
using EventKind = TimelineEvent::Kind;

constexpr const char* kData = "data";
constexpr const char* kPipe = "pipe";

Kind kind_of(const CollectiveStep& step) {
  if (step.op == ops::kAllReduce) return step.maximum ? Kind::kMaximum : Kind::kAllReduce;
  if (step.op == ops::kReduceScatter) return Kind::kReduceScatter;
  if (step.op == ops::kAllToAll) return Kind::kAllToAll;
  return Kind::kAllGather;  // halos, too, are told to all
}

class Writer {
 public:
  Writer(const RankStep& step, const TimelineCosts& costs) : step_(step), costs_(costs) {}

  Timeline write() {
    const Program& program = *step_.microbatches.at(0).program;
    begin_step(program);
    if (step_.order != nullptr) {
      for (const Turn& turn : step_.order->own) run_half(turn.half, turn.microbatch);
      await_messages();
    } else {
      for (std::int64_t m = 0; m < std::ssize(step_.microbatches); ++m) {
        for (int h = 0; h < std::ssize(program.halves); ++h) run_half(h, m);
      }
    }
    reduce(program);
    if (step_.pipe_ranks > 1) {
      meet({.group = kPipe, .kind = Kind::kAllReduce, .bytes = 2 * sizeof(float), .label = "loss"});
    }
    meet({.group = "", .kind = Kind::kAgreement});
    update(program);
    return std::move(timeline_);
  }

  // As engine_stream.cc does it; before its first steps and after its last, the ranks do not all
  // have as much to do.
  Timeline write_stream() {
    const Program& program = *step_.microbatches.at(0).program;
    const int behind = step_.pipe_ranks - 1 - step_.place_along_pipe, some = 2 * step_.pipe_ranks;
    timeline_.runs = 1;
    timeline_.begin = some;
    timeline_.end = 2 * some + 2;
    const auto of_step = std::ssize(step_.microbatches);
    std::int64_t begun = 0, done = 0;    // microbatches
    std::deque<std::int64_t> in_flight;  // of these steps, those that are not done
    std::deque<std::size_t> told;        // operations
    const auto go_backward = [&] {
      leaves_ = std::move(leaves_of_steps_.front());
      run_half(1, done++);
      leaves_of_steps_.front() = std::move(leaves_);
      if (--in_flight.front() > 0) return;
      reduce(program);
      if (step_.kept_bytes > 0) compute(costs_.of_copy(step_.kept_bytes), 1, "copy", "weights");
      update(program);
      timeline_.events.push_back({.kind = EventKind::kStepEnd});
      in_flight.pop_front();
      leaves_of_steps_.pop_front();
    };
    for (int s = 0; s <= timeline_.end + some; ++s) {
      while (std::ssize(in_flight) >= step_.steps_in_flight) go_backward();
      begin_step(program);
      leaves_of_steps_.push_back(leaves_);
      in_flight.push_back(of_step);
      for (std::int64_t m = 0; m < of_step; ++m) {
        leaves_ = std::move(leaves_of_steps_.back());
        run_half(0, begun++);
        leaves_of_steps_.back() = std::move(leaves_);
        if (begun - done > behind) go_backward();
      }
      if (s >= step_.most_in_flight) {
        told.push_back(start({.kind = Kind::kAllReduce, .bytes = kToldBytes, .label = "loss"}));
      }
      if (std::ssize(told) <= step_.most_in_flight) continue;
      await(told.front());
      told.pop_front();
    }
    while (!in_flight.empty()) go_backward();
    for (const std::size_t one : told) await(one);
    return std::move(timeline_);
  }

 private:
  static constexpr std::size_t kToldBytes = 36 * sizeof(float);

  void begin_step(const Program& program) {
    leaves_.assign(program.halves.size(), {.next = step_.place.first_leaf, .stack = {}});
    run(program, program.prologue, 0, program.prologue.size(), 1);
    await_all();
  }

  void update(const Program& program) {
    run(program, program.update, 0, program.update.size(), 1);
    await_all();
    await_messages();
    if (step_.data_ranks > 1 && step_.has_common_memory) meet({kData, Kind::kBarrier});
  }

  std::size_t start(TimelineOperation operation) {
    timeline_.operations.push_back(std::move(operation));
    const std::size_t id = timeline_.operations.size() - 1;
    timeline_.events.push_back({.kind = EventKind::kStart, .operation = id});
    return id;
  }
  void await(std::size_t id) {
    timeline_.events.push_back({.kind = EventKind::kAwait, .operation = id});
  }
  void meet(TimelineOperation operation) { await(start(std::move(operation))); }

  void compute(OpCost cost, double share, std::string_view name, std::string_view about) {
    cost.alone *= share;
    cost.crowded *= share;
    timeline_.events.push_back(
        {.kind = EventKind::kCompute, .cost = cost, .name = name, .about = about});
  }

  void run(const Program& program, const std::vector<ProgramStep>& steps, std::size_t begin,
           std::size_t end, double share) {
    for (std::size_t s = begin; s < end; ++s) {
      const ProgramStep& step = steps[s];
      for (; finished_ < step.awaits; ++finished_) await(begun_[finished_]);
      if (step.kernel != nullptr) {
        compute(costs_.of_step(program, step, microbatch_), share, step.op, step.layer);
      } else if (step.message) {
        deliver(*step.message);
      } else {
        collective(*step.collective, step.goes_on, share);
      }
    }
  }

  void collective(const CollectiveStep& step, bool goes_on, double share) {
    const TimelineOperation operation{
        .group = step.axis,
        .kind = kind_of(step),
        .bytes = static_cast<std::size_t>(
            share * static_cast<double>(std::max(step.in_bytes(), step.out_bytes()))),
        .label = step.label};
    if (const std::size_t copied = step.packed_bytes + step.unpacked_bytes; copied > 0) {
      compute(costs_.of_copy(copied), share, "copy", step.label.text());
    }
    if (microbatch_ < 0) await_messages();
    if (!goes_on) return meet(operation);
    begun_.push_back(start(operation));
  }

  void deliver(const MessageStep& message) {
    TimelineOperation operation{.group = message.stream,
                                .kind = message.is_send ? Kind::kSend : Kind::kReceive,
                                .bytes = message.bytes,
                                .label = message.label,
                                .from = step_.place_along_pipe,
                                .to = message.peer,
                                .is_send = message.is_send,
                                .microbatch = microbatch_,
                                .number = message.number};
    if (!message.is_send) std::swap(operation.from, operation.to);
    const std::size_t id = start(std::move(operation));
    if (message.is_send || microbatch_ < 0) {
      sent_.push_back(id);
    } else {
      await(id);
    }
  }

  void await_messages() {
    for (const std::size_t sent : sent_) await(sent);
    sent_.clear();
  }

  void await_all() {
    for (; finished_ < begun_.size(); ++finished_) await(begun_[finished_]);
    begun_.clear();
    finished_ = 0;
  }

  void run_half(int number, std::int64_t m) {
    const RankStep::Microbatch& microbatch =
        step_.microbatches[static_cast<std::size_t>(m) % step_.microbatches.size()];
    const Program& program = *microbatch.program;
    const auto h = static_cast<std::size_t>(number);
    const ProgramHalf& half = program.halves[h];
    microbatch_ = m;
    if (number == 0) compute(costs_.of_inputs(program, m), microbatch.share, "inputs", "");
    mark(EventKind::kBegin, number);
    std::size_t done = h == 0 ? 0 : program.halves[h - 1].end;
    const std::int64_t joins = half.buckets.empty() ? 0 : joins_of(h, microbatch.place);
    for (std::size_t b = 0; b < half.buckets.size(); ++b) {
      run(program, program.microbatch, done, half.bucket_ends[b], microbatch.share);
      done = half.bucket_ends[b];
      add(half.buckets[b], program.in_rounds ? 0 : joins, number_of_bucket(program, h, b));
      if (program.in_rounds || microbatch.place.last_of_step) start_sum(half.buckets[b]);
    }
    run(program, program.microbatch, done, half.end, microbatch.share);
    await_all();
    if (program.in_rounds) end_round(half, h);
    mark(EventKind::kEnd, number);
    microbatch_ = -1;
  }

  // As the executor's trace has it.
  void mark(EventKind kind, int half) {
    if (step_.order == nullptr) return;
    const auto& name = step_.order->names[static_cast<std::size_t>(half)];
    const std::string about = fmt::format("microbatch {}, chunk {}", microbatch_, name.chunk);
    timeline_.events.push_back(
        {.kind = kind, .name = std::string_view(name.kind), .about = std::string_view(about)});
  }

  // Additions of whole contributions, as LeafSums does.
  std::int64_t joins_of(std::size_t half, const MicrobatchPlace& place) {
    Leaves& leaves = leaves_[half];
    std::int64_t joins = place.first_of_leaf ? 0 : 1;
    if (place.first_of_leaf) leaves.stack.push_back({0, leaves.next});
    if (place.last_of_leaf) {
      ++leaves.next;
      comm::join_halves(leaves.stack, [&] {
        leaves.stack.pop_back();
        ++joins;
      });
    }
    return joins;
  }

  void add(const Bucket& bucket, std::int64_t times, std::size_t number) {
    if (times > 0 && costs_.of_bucket) {
      return compute(costs_.of_bucket(number, microbatch_), 1, "add leaves", bucket.label.text());
    }
    for (; times > 0; --times) {
      compute(costs_.of_addition(bucket.bytes), 1, "add leaves", bucket.label.text());
    }
  }

  static std::size_t number_of_bucket(const Program& program, std::size_t half, std::size_t b) {
    for (std::size_t h = 0; h < half; ++h) b += program.halves[h].buckets.size();
    return b;
  }

  void start_sum(const Bucket& bucket) {
    if (step_.data_ranks == 1) return;
    if (rounds_wait_) await(*rounds_wait_);
    const bool is_whole = bucket.pieces.empty();
    const std::size_t id = start({.group = kData,
                                  .kind = is_whole ? Kind::kTreeSum : Kind::kTreeScatter,
                                  .bytes = bucket.bytes,
                                  .label = bucket.label});
    if (in_rounds()) {
      rounds_wait_ = id;
    } else {
      sums_.push_back(id);
    }
  }

  bool in_rounds() const { return step_.microbatches[0].program->in_rounds; }

  // As RoundSums does.
  void end_round(const ProgramHalf& half, std::size_t number) {
    if (half.buckets.empty()) return;
    if (rounds_wait_) await(*rounds_wait_);
    rounds_wait_.reset();
    if (step_.has_common_memory && step_.data_ranks > 1) meet({kData, Kind::kBarrier});
    Leaves& rounds = leaves_[number];
    rounds.stack.push_back({0, rounds.next++});
    comm::join_halves(rounds.stack, [&] {
      rounds.stack.pop_back();
      compute(costs_.of_addition(half.totals_bytes), 1, "add leaves", "");
    });
  }

  void reduce(const Program& program) {
    if (in_rounds()) {
      for (std::size_t h = 0; h < program.halves.size(); ++h) {
        const ProgramHalf& half = program.halves[h];
        while (!half.buckets.empty() && leaves_[h].next < step_.place.rounds) {
          for (const Bucket& bucket : half.buckets) start_sum(bucket);
          end_round(half, h);
        }
      }
    } else if (sums_.empty()) {
      for (const ProgramHalf& half : program.halves) {
        for (const Bucket& bucket : half.buckets) start_sum(bucket);
      }
    }
    for (const std::size_t sum : sums_) await(sum);
    sums_.clear();
  }

  const RankStep& step_;
  const TimelineCosts& costs_;
  Timeline timeline_;
  std::vector<std::size_t> begun_, sums_, sent_;
  std::size_t finished_ = 0;
  struct Leaves {
    std::int64_t next = 0;
    std::vector<comm::Subtree> stack;
  };
  std::vector<Leaves> leaves_;  // by half: leaves, or rounds
  std::deque<std::vector<Leaves>> leaves_of_steps_;
  std::int64_t microbatch_ = -1;
  std::optional<std::size_t> rounds_wait_;
};

}  // namespace

Timeline timeline_of(const RankStep& step, const TimelineCosts& costs) {
  return Writer(step, costs).write();
}

Timeline timeline_of_stream(const RankStep& step, const TimelineCosts& costs) {
  return Writer(step, costs).write_stream();
}

}  // namespace concord
