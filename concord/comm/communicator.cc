#include "concord/comm/communicator.h"

#include <fmt/ranges.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "concord/base/clock.h"
#include "concord/base/parallel.h"

namespace concord::comm {
namespace {

// Linux gives a thread of short slices its core as soon as it wakes (EEVDF, from 6.12 on); else it
// waits until the slice of the one that computes there has ended, for milliseconds.
void ask_for_short_slices() {
  struct {  // struct sched_attr of linux/sched/types.h, its first version
    std::uint32_t size, policy;
    std::uint64_t flags;
    std::int32_t nice;
    std::uint32_t priority;
    std::uint64_t runtime, deadline, period;
  } attributes{};
  static_assert(sizeof attributes == 48);
  attributes.size = sizeof attributes;
  attributes.runtime = 100'000;                   // nanoseconds: the shortest there is
  syscall(SYS_sched_setattr, 0, &attributes, 0);  // refused, it waits as others do
}

}  // namespace

void add_floats(std::byte* a, const std::byte* b, std::size_t bytes) {
  auto* into = reinterpret_cast<float*>(a);
  const auto* from = reinterpret_cast<const float*>(b);
  parallel_for(static_cast<std::int64_t>(bytes / sizeof(float)), 1 << 14,
               [=](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) into[i] += from[i];
               });
}

void keep_larger(float* a, const float* b, std::int64_t count) {
  parallel_for(count, 1 << 14, [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) a[i] = a[i] >= b[i] || a[i] != a[i] ? a[i] : b[i];
  });
}

Communicator::~Communicator() { CONCORD_CHECK(!worker_.joinable(), "a backend has not stopped"); }

void Communicator::stop() {
  splits_.clear();
  if (!worker_.joinable()) return;
  if (done_ < started_) abort(fmt::format("rank {} has left", rank_));
  stopping_ = true;
  started_.fetch_add(1);  // something to wake for
  started_.notify_one();
  worker_.join();
}

void Communicator::set_step(std::int64_t step) {
  step_ = step;
  for (const Split& split : splits_) {
    if (split.own) split.own->set_step(step);
  }
}

Communicator& Communicator::split(const Mesh& mesh, std::string_view axis) {
  if (mesh.ranks() != size_) {
    fail("mesh {} has {} ranks, and there are {}", to_string(mesh), mesh.ranks(), size_);
  }
  std::vector<int> colors;
  for (int r = 0; r < size_; ++r) colors.push_back(mesh.first_along(r, axis));
  return split(axis, colors, to_string(mesh), Groups::kOfMesh);
}

Communicator& Communicator::split(std::string_view name, std::span<const int> colors) {
  if (std::ssize(colors) != size_) {
    fail("groups of {} ranks, and there are {}", colors.size(), size_);
  }
  return split(name, colors, fmt::format("{}", fmt::join(colors, " ")), Groups::kOfTheirOwn);
}

Communicator& Communicator::split(std::string_view name, std::span<const int> colors,
                                  std::string_view ways, Groups groups) {
  const std::string_view what = groups == Groups::kOfMesh ? "mesh" : "groups";
  const auto found = std::ranges::find(splits_, name, &Split::axis);
  if (found != splits_.end()) {
    if (found->ways != ways) {
      fail("{} {} is split along {}, which was split in {} {}: expected {}", what, ways, name, what,
           found->ways, groups == Groups::kOfMesh ? "one mesh" : "the same");
    }
    return found->own ? *found->own : *this;
  }
  const std::string of_first = broadcast(std::string(ways));
  if (of_first != ways) {
    fail("rank {} has {} {}, and rank 0 has {} {}", rank_, what, ways, what, of_first);
  }
  Split made{std::string(name), std::string(ways), nullptr};
  const auto color_of = [&](int r) { return colors[static_cast<std::size_t>(r)]; };
  GroupOptions options;
  options.group.axis = name;
  std::vector<int> all(static_cast<std::size_t>(size_));
  std::iota(all.begin(), all.end(), 0);
  for (const int r : all) {
    options.groups.push_back(*std::ranges::find(all, color_of(r), color_of));
    if (color_of(r) != color_of(rank_)) continue;
    if (r == rank_) options.rank = static_cast<int>(options.group.members.size());
    options.group.members.push_back(r);
  }
  const bool any_together = std::ranges::any_of(
      all, [&](int r) { return options.groups[static_cast<std::size_t>(r)] != r; });
  if (!any_together && size_ > 1) {
    made.own = std::make_unique<Alone>();
  } else if (groups == Groups::kOfTheirOwn || std::ssize(options.group.members) < size_) {
    try {
      made.own = make_group(options);
    } catch (const Error& error) {
      abort(error.what());
      throw;
    }
  }
  if (made.own) made.own->set_step(step_);
  splits_.push_back(std::move(made));
  return splits_.back().own ? *splits_.back().own : *this;
}

Ticket Communicator::enqueue(const Operation& operation) {
  check_operation(operation, rank_, size_);
  const Ticket ticket = started_.load(std::memory_order_relaxed) + 1;
  if (ticket > kRemembered) wait(ticket - kRemembered);
  record_of(ticket) = {.operation = operation, .step = step_, .started = now_seconds()};
  started_.store(ticket, std::memory_order_release);
  return ticket;
}

Ticket Communicator::start(const Operation& operation) {
  const Ticket ticket = enqueue(operation);
  if (size_ == 1) {
    wait(ticket);
    return ticket;
  }
  if (!worker_.joinable()) worker_ = std::thread([this] { work(); });
  started_.notify_one();
  return ticket;
}

Result Communicator::run(const Operation& operation) { return wait(enqueue(operation)); }

Result Communicator::wait(Ticket ticket) {
  CONCORD_CHECK(ticket + kRemembered > started_.load(std::memory_order_relaxed),
                "the result of operation {} is forgotten", ticket);
  const Ticket done = done_.load(std::memory_order_acquire);
  if (done >= ticket) return record_of(ticket).result;
  const double start = now_seconds();
  // The thread may hold the lock from one operation to the next, of which this rank may be to do
  // something else before: so it is not the lock that is waited for.
  while (done_.load(std::memory_order_acquire) < ticket) {
    const std::uint32_t turn = turns_.load();
    if (std::unique_lock lock(executing_, std::try_to_lock); lock) {
      while (done_.load(std::memory_order_relaxed) < ticket) execute_next(/*patient=*/false);
    } else if (done_.load(std::memory_order_acquire) < ticket) {
      turns_.wait(turn);
    }
  }
  for (Ticket one = done + 1; one <= ticket; ++one) {
    const Record& record = record_of(one);
    waited_ += std::max(0.0, record.ended - std::max(start, record.began));
  }
  return record_of(ticket).result;
}

// With executing_ held.
void Communicator::execute_next(bool patient) {
  if (failure_) std::rethrow_exception(failure_);
  Record& record = record_of(done_.load(std::memory_order_relaxed) + 1);
  std::atomic_ref(record.began).store(now_seconds());
  try {
    record.result = record.operation.kind == Operation::Kind::kRounds
                        ? execute_rounds(record, patient)
                        : execute(record, patient);
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
  record.ended = now_seconds();
  busy_.store(busy_.load() + record.ended - record.began);
  done_.fetch_add(1, std::memory_order_release);
}

// Who waits may be the thread that does it, or another: with one thread each they compute the same
// bits.
Result Communicator::execute_rounds(const Record& record, bool patient) {
  const int threads = compute_threads();
  if (threads > 1) set_compute_threads(1);
  Record round = record;
  while (const std::optional<Operation> operation = record.operation.rounds->next()) {
    round.operation = *operation;
    round.operation.label = record.operation.label;
    check_operation(round.operation, rank_, size_);
    execute(round, patient);
  }
  if (threads > 1) set_compute_threads(threads);
  return {};
}

void Communicator::work() {
  set_compute_threads(1);  // the rank's others compute meanwhile
  ask_for_short_slices();
  for (;;) {
    const Ticket started = started_.load(std::memory_order_acquire);
    if (stopping_) return;
    if (done_.load(std::memory_order_acquire) >= started) {
      started_.wait(started);
      continue;
    }
    bool has_failed = false;
    {
      const std::lock_guard lock(executing_);
      try {
        if (done_.load(std::memory_order_relaxed) < started) execute_next(/*patient=*/true);
      } catch (const std::exception&) {
        has_failed = true;  // whoever waits is told
      }
    }
    turns_.fetch_add(1);
    turns_.notify_all();
    if (has_failed) return;
  }
}

std::byte* Communicator::share(std::size_t bytes) {
  wait(started_.load(std::memory_order_relaxed));
  std::byte* const data = make_shared(bytes);
  shared_.push_back({data, bytes});
  return data;
}

void Communicator::unshare(std::byte* data) {
  const std::lock_guard lock(executing_);
  std::erase_if(shared_, [=](const Shared& shared) { return shared.data == data; });
  drop_shared(data);
}

std::byte* Communicator::make_shared(std::size_t bytes) {
  return buffers_.emplace_back(bytes).data();
}

void Communicator::drop_shared(std::byte* data) {
  std::erase_if(buffers_, [=](const Buffer& buffer) { return buffer.data() == data; });
}

std::byte* Communicator::common(std::size_t bytes) {
  wait(started_.load(std::memory_order_relaxed));
  return make_common(bytes);
}

std::byte* Communicator::make_common(std::size_t) {
  fail("the ranks of this job have no memory in common");
}

std::string Communicator::broadcast(const std::string& value) {
  std::uint64_t bytes = value.size();
  run(comm::broadcast(std::as_writable_bytes(std::span(&bytes, 1)), 0));
  std::string received = value;
  received.resize(bytes);
  run(comm::broadcast(std::as_writable_bytes(std::span(received)), 0));
  return received;
}

Communicator::Usage Communicator::usage() const {
  Usage sum;
  for (const Split& split : splits_) {
    if (!split.own) continue;
    const Usage usage = split.own->usage();
    sum.busy += usage.busy;
    sum.waited += usage.waited;
    sum.sent += usage.sent;
  }
  return {sum.busy + busy_.load(), sum.waited + waited_, sum.sent + own_sent()};
}

std::size_t Communicator::bytes() const {
  std::size_t bytes = own_bytes();
  for (const Shared& shared : shared_) bytes += shared.bytes;
  for (const Split& split : splits_) {
    if (split.own) bytes += split.own->bytes();
  }
  return bytes;
}

// While an operation goes on, which may be waiting for this rank: of it, what is known before its
// end.
std::vector<Record> Communicator::flight_record() const {
  std::vector<Record> records;
  for (const Split& split : splits_) {
    if (!split.own) continue;
    for (Record& record : split.own->flight_record()) {
      record.axis = Label(split.axis);
      records.push_back(record);
    }
  }
  const Ticket last = started_.load(), done = done_.load(std::memory_order_acquire);
  for (Ticket t = last > kRemembered ? last - kRemembered + 1 : 1; t <= last; ++t) {
    Record& record = const_cast<Record&>(records_[t % kRemembered]);
    if (t <= done) {
      records.push_back(record);
      continue;
    }
    records.push_back({.operation = record.operation,
                       .axis = record.axis,
                       .step = record.step,
                       .started = record.started,
                       .began = std::atomic_ref(record.began).load()});
  }
  if (!splits_.empty()) std::ranges::stable_sort(records, {}, &Record::started);
  return records;
}

std::unique_ptr<Communicator> Alone::make_group(const GroupOptions&) {
  CONCORD_CHECK(false, "one rank has no groups");
  return nullptr;
}

Result Alone::execute(const Record& record, bool) {
  const Operation& op = record.operation;
  if (op.kind != Operation::Kind::kTreeSum && op.kind != Operation::Kind::kTreeScatter) {
    CONCORD_CHECK(op.kind != Operation::Kind::kSend && op.kind != Operation::Kind::kReceive,
                  "a message of a rank to itself");
    if (op.in != op.out && op.bytes > 0) std::memcpy(op.out, op.in, op.bytes);
    return {.flags = op.flags};
  }
  CONCORD_CHECK(!op.parts.empty(), "a sum of nothing");
  nodes_.clear();
  for (const Part& part : op.parts) nodes_.push_back(part.node);
  const std::span<const Join> joins = joins_.of(nodes_);
  const auto add_up = [&](std::size_t offset, std::size_t bytes) {
    for (const Join& join : joins) {
      add_floats(op.parts[join.into].data + offset, op.parts[join.from].data + offset, bytes);
    }
    return op.parts[0].data + offset;
  };
  if (op.kind == Operation::Kind::kTreeSum) return {.sum = add_up(op.offset, op.bytes)};
  for (const Piece& piece : op.pieces) {
    std::memmove(op.out + piece.out_offset, add_up(piece.offset, piece.part_bytes),
                 piece.part_bytes);
  }
  return {.sum = op.out};
}

}  // namespace concord::comm
