#include "concord/comm/communicator.h"

#include <algorithm>
#include <cstring>

#include "concord/base/clock.h"
#include "concord/base/parallel.h"

namespace concord::comm {

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
  const auto found = std::ranges::find(splits_, axis, &Split::axis);
  if (found != splits_.end()) {
    if (found->mesh != mesh) {
      fail("mesh {} is split along {}, which was split in mesh {}: expected one mesh",
           to_string(mesh), axis, to_string(found->mesh));
    }
    return found->own ? *found->own : *this;
  }
  const std::string of_first = broadcast(to_string(mesh));
  if (of_first != to_string(mesh)) {
    fail("rank {} has mesh {}, and rank 0 has mesh {}", rank_, to_string(mesh), of_first);
  }
  Split made{std::string(axis), mesh, nullptr};
  if (mesh.extent(axis) == 1 && size_ > 1) {
    made.own = std::make_unique<Alone>();
  } else if (mesh.extent(axis) < size_) {
    GroupOptions options{.group = {made.axis, mesh.ranks_along(rank_, axis)},
                         .rank = mesh.coordinate(rank_, axis)};
    for (int r = 0; r < size_; ++r) options.groups.push_back(mesh.first_along(r, axis));
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
  if (const Ticket done = done_.load(std::memory_order_acquire); done < ticket) {
    const double start = now_seconds();
    const std::lock_guard lock(executing_);
    while (done_.load(std::memory_order_relaxed) < ticket) execute_next(/*patient=*/false);
    for (Ticket one = done + 1; one <= ticket; ++one) {
      const Record& record = record_of(one);
      usage_.waited += std::max(0.0, record.ended - std::max(start, record.began));
    }
  }
  return record_of(ticket).result;
}

// With executing_ held.
void Communicator::execute_next(bool patient) {
  if (failure_) std::rethrow_exception(failure_);
  Record& record = record_of(done_.load(std::memory_order_relaxed) + 1);
  record.began = now_seconds();
  try {
    record.result = execute(record, patient);
  } catch (...) {
    failure_ = std::current_exception();
    throw;
  }
  record.ended = now_seconds();
  usage_.busy += record.ended - record.began;
  done_.fetch_add(1, std::memory_order_release);
}

void Communicator::work() {
  set_compute_threads(1);  // the rank's others compute meanwhile
  for (;;) {
    const Ticket started = started_.load(std::memory_order_acquire);
    if (stopping_) return;
    if (done_.load(std::memory_order_acquire) >= started) {
      started_.wait(started);
      continue;
    }
    const std::lock_guard lock(executing_);
    try {
      if (done_.load(std::memory_order_relaxed) < started) execute_next(/*patient=*/true);
    } catch (const std::exception&) {
      return;  // whoever waits is told
    }
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
  std::string received = is_first() ? value : std::string(bytes, '\0');
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
  }
  const std::lock_guard lock(executing_);
  return {sum.busy + usage_.busy, sum.waited + usage_.waited};
}

std::size_t Communicator::bytes() const {
  std::size_t bytes = own_bytes();
  for (const Shared& shared : shared_) bytes += shared.bytes;
  for (const Split& split : splits_) {
    if (split.own) bytes += split.own->bytes();
  }
  return bytes;
}

std::vector<Record> Communicator::flight_record() const {
  std::vector<Record> records;
  for (const Split& split : splits_) {
    if (!split.own) continue;
    for (Record& record : split.own->flight_record()) {
      record.axis = Label(split.axis);
      records.push_back(record);
    }
  }
  const std::lock_guard lock(executing_);
  const Ticket last = started_.load();
  for (Ticket t = last > kRemembered ? last - kRemembered + 1 : 1; t <= last; ++t) {
    records.push_back(records_[t % kRemembered]);
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
