#include "concord/comm/transport_communicator.h"

#include <algorithm>
#include <mutex>

#include "concord/base/deadline.h"
#include "concord/comm/channel.h"
#include "concord/comm/reduction.h"
#include "concord/comm/verdict.h"
#include "concord/net/transport.h"

namespace concord::comm {
namespace {

using Kind = Operation::Kind;

// The transports of a rank, its job's and those of its groups, and what has become of the job.
class Ways {
 public:
  void add(net::Transport& transport) {
    const std::lock_guard lock(mutex_);
    transports_.push_back(&transport);
    if (!line_.empty()) transport.interrupt(line_);
  }
  void remove(net::Transport& transport) {
    const std::lock_guard lock(mutex_);
    std::erase(transports_, &transport);
  }
  void interrupt(const std::string& line) {
    const std::lock_guard lock(mutex_);
    line_ = line;
    for (net::Transport* const transport : transports_) transport->interrupt(line);
  }

  std::unique_ptr<Verdict> verdict;  // its thread uses the transports

 private:
  std::mutex mutex_;
  std::string line_;
  std::vector<net::Transport*> transports_;
};

class TransportCommunicator final : public Communicator {
 public:
  // Of a job, where `job` is null; else of a group.
  TransportCommunicator(const TransportOptions& options, net::StoreClient& store, Deadline deadline,
                        const net::AxisGroup& group = {}, Ways* job = nullptr, int circle = 0)
      : Communicator(options.rank, options.topology.size),
        options_(options),
        store_(store),
        axis_(group.axis),
        circle_(circle),
        transport_(net::make_transport(options.topology.transport,
                                       {.rank = rank(), .size = size(), .group = group}, store,
                                       deadline)),
        channel_(*transport_, options.timeout_seconds),
        reduction_(channel_, options.topology, options.any_order),
        ways_(job == nullptr ? own_ways_ : *job) {
    ways_.add(*transport_);
    if (job == nullptr) {
      ways_.verdict =
          std::make_unique<Verdict>(rank(), size(), store, deadline,
                                    [this](const std::string& line) { own_ways_.interrupt(line); });
    }
  }
  ~TransportCommunicator() override {
    stop();
    ways_.remove(*transport_);
    own_ways_.verdict.reset();
  }

  void abort(std::string_view reason) override {
    ways_.interrupt(ways_.verdict->pronounce(std::string(reason)));
  }

 private:
  Result execute(const Record& record, bool patient) override {
    const Operation& op = record.operation;
    Call call = call_of(op, record.step, axis_);
    const bool is_message = op.kind == Kind::kSend || op.kind == Kind::kReceive;
    // Both ends of a message say the same of it.
    if (op.kind == Kind::kReceive) {
      call.kind = Kind::kSend;
      call.peer = rank();
    }
    Verdict& verdict = *ways_.verdict;
    if (is_message) {
      verdict.enter_message(circle_, transport_->in_job(op.peer), call);
    } else {
      verdict.enter(circle_, ++entered_, call);
    }
    channel_.begin(call, patient);
    std::string line;
    try {
      const Result result = perform(op);
      verdict.leave(circle_);
      return result;
    } catch (const net::PeerError& error) {
      line = verdict.of_peer(circle_, error, options_.timeout_seconds);
    } catch (const Disagreement& error) {
      line = verdict.pronounce(error.what());
    } catch (const Error& error) {
      line = verdict.of_misunderstanding(circle_, error.what());
    }
    ways_.interrupt(line);
    transport_->close();
    throw RankError(line);
  }

  std::unique_ptr<Communicator> make_group(const GroupOptions& group) override {
    TransportOptions options = options_;
    options.rank = group.rank;
    options.topology.size = static_cast<int>(group.group.members.size());
    options.topology.hosts.clear();
    for (const int r : group.group.members) {
      if (options_.topology.hosts.empty()) break;
      options.topology.hosts.push_back(options_.topology.hosts[static_cast<std::size_t>(r)]);
    }
    check_algorithm(options.algorithm, options.topology, options.any_order);
    const int circle = ways_.verdict->add_circle(group.groups);
    try {
      return std::make_unique<TransportCommunicator>(
          options, store_, Deadline::in(options.timeout_seconds), group.group, &ways_, circle);
    } catch (const net::PeerError& error) {
      throw RankError(ways_.verdict->pronounce(error.what()));
    }
  }

  std::size_t own_bytes() const override { return reduction_.bytes(); }
  std::uint64_t own_sent() const override { return channel_.sent(); }

  Result perform(const Operation& op) {
    switch (op.kind) {
      case Kind::kBarrier:
      case Kind::kAgreement:
        return {.flags = disseminate(op.flags)};
      case Kind::kTreeSum:
        reduction_.sum(options_.algorithm, op.parts, op.offset, op.bytes, op.out);
        return {.sum = op.out};
      case Kind::kTreeScatter:
        reduction_.scatter_parts(op.parts, op.pieces, op.out);
        return {.sum = op.out};
      case Kind::kAllReduce: {
        if (op.in != op.out) std::copy_n(op.in, op.bytes, op.out);
        const Part own{{0, rank()}, op.out};
        reduction_.sum(options_.algorithm, {&own, 1}, 0, op.bytes, op.out);
        return {};
      }
      case Kind::kMaximum:
        if (op.in != op.out) std::copy_n(op.in, op.bytes, op.out);
        reduction_.maximum({op.out, op.bytes});
        return {};
      case Kind::kReduceScatter:
        reduction_.scatter(op.in, piece_of(op), op.out);
        return {};
      case Kind::kBroadcast:
        if (rank() == op.peer && op.in != op.out) std::copy_n(op.in, op.bytes, op.out);
        reduction_.broadcast({op.out, op.bytes}, op.peer);
        return {};
      case Kind::kAllGather:
        exchange(op, op.bytes, /*in_pieces=*/false);
        return {};
      case Kind::kAllToAll:
        exchange(op, piece_of(op), /*in_pieces=*/true);
        return {};
      case Kind::kGather:
        gather(op);
        return {};
      case Kind::kSend:
        channel_.greet(op.peer);
        channel_.send(op.peer, {op.in, op.bytes});
        channel_.wait_all();
        return {};
      case Kind::kReceive:
        channel_.meet(op.peer);
        channel_.receive(op.peer, {op.out, op.bytes});
        channel_.wait_all();
        return {};
      case Kind::kRounds:
        break;  // Communicator does them
    }
    return {};
  }

  std::size_t piece_of(const Operation& op) const {
    return op.bytes / static_cast<std::size_t>(size());
  }

  // Who has heard from twice as many ranks in each round has heard from all in log2(size) rounds
  // (D. Hensgen, R. Finkel, U. Manber, "Two algorithms for barrier synchronization", 1988).
  std::uint32_t disseminate(std::uint32_t flags) {
    for (int distance = 1; distance < size(); distance *= 2) {
      channel_.greet((rank() + distance) % size(), {}, flags);
      flags |= channel_.meet((rank() + size() - distance) % size()).flags;
    }
    channel_.wait_all();
    return flags;
  }

  // Each with each, at once.
  void exchange(const Operation& op, std::size_t bytes, bool in_pieces) {
    const auto in_for = [&](int r) {
      return op.in + (in_pieces ? static_cast<std::size_t>(r) * bytes : 0);
    };
    const auto out_from = [&](int r) { return op.out + static_cast<std::size_t>(r) * bytes; };
    // What lies there already may be read meanwhile.
    if (in_for(rank()) != out_from(rank())) std::copy_n(in_for(rank()), bytes, out_from(rank()));
    for (int i = 1; i < size(); ++i) channel_.greet((rank() + i) % size());
    for (int i = 1; i < size(); ++i) {
      const int to = (rank() + i) % size(), from = (rank() + size() - i) % size();
      channel_.send(to, {in_for(to), bytes});
      channel_.meet(from);
      channel_.receive(from, {out_from(from), bytes});
    }
    channel_.wait_all();
  }

  void gather(const Operation& op) {
    if (rank() != op.peer) {
      channel_.greet(op.peer);
      channel_.send(op.peer, {op.in, op.bytes});
    } else {
      for (int r = 0; r < size(); ++r) {
        std::byte* const place = op.out + static_cast<std::size_t>(r) * op.bytes;
        if (r == rank()) {
          std::copy_n(op.in, op.bytes, place);
          continue;
        }
        channel_.meet(r);
        channel_.receive(r, {place, op.bytes});
      }
    }
    channel_.wait_all();
  }

  TransportOptions options_;
  net::StoreClient& store_;
  Label axis_;
  int circle_;  // of the verdict
  std::unique_ptr<net::Transport> transport_;
  Channel channel_;
  Reduction reduction_;
  std::uint64_t entered_ = 0;  // operations in which all take part
  Ways own_ways_;              // of a job
  Ways& ways_;                 // of the job
};

}  // namespace

std::unique_ptr<Communicator> join_by_transport(const TransportOptions& options,
                                                net::StoreClient& store) {
  check_algorithm(options.algorithm, options.topology, options.any_order);
  return std::make_unique<TransportCommunicator>(options, store,
                                                 Deadline::in(options.timeout_seconds));
}

}  // namespace concord::comm
