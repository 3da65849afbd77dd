#include "concord/comm/communicator.h"

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

Communicator::~Communicator() { CONCORD_CHECK(!worker_.joinable(), "a backend has not stopped"); }

void Communicator::stop() {
  if (!worker_.joinable()) return;
  if (done_ < started_) abort(fmt::format("rank {} has left", rank_));
  stopping_ = true;
  started_.fetch_add(1);  // something to wake for
  started_.notify_one();
  worker_.join();
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
  if (done_.load(std::memory_order_acquire) < ticket) {
    const double start = now_seconds();
    const std::lock_guard lock(executing_);
    while (done_.load(std::memory_order_relaxed) < ticket) execute_next(/*patient=*/false);
    usage_.waited += now_seconds() - start;
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
  shared_bytes_ += bytes;
  return make_shared(bytes);
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
  const std::lock_guard lock(executing_);
  return usage_;
}

std::vector<Record> Communicator::flight_record() const {
  const std::lock_guard lock(executing_);
  std::vector<Record> records;
  const Ticket last = started_.load();
  for (Ticket t = last > kRemembered ? last - kRemembered + 1 : 1; t <= last; ++t) {
    records.push_back(records_[t % kRemembered]);
  }
  return records;
}

std::byte* Alone::make_shared(std::size_t bytes) { return buffers_.emplace_back(bytes).data(); }

Result Alone::execute(const Record& record, bool) {
  const Operation& op = record.operation;
  if (op.kind != Operation::Kind::kTreeSum) {
    CONCORD_CHECK(op.kind != Operation::Kind::kSend && op.kind != Operation::Kind::kReceive,
                  "a message of a rank to itself");
    if (op.in != op.out && op.bytes > 0) std::memcpy(op.out, op.in, op.bytes);
    return {.flags = op.flags};
  }
  CONCORD_CHECK(!op.parts.empty(), "a sum of nothing");
  nodes_.clear();
  for (const Part& part : op.parts) nodes_.push_back(part.node);
  for (const Join& join : joins_.of(nodes_)) {
    add_floats(op.parts[join.into].data + op.offset, op.parts[join.from].data + op.offset,
               op.bytes);
  }
  return {.sum = op.parts[0].data + op.offset};
}

}  // namespace concord::comm
