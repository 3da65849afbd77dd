#include "concord/runtime/messages.h"

#include <algorithm>
#include <tuple>

#include "concord/base/error.h"

namespace concord {

std::int64_t most_at_once(const std::vector<Turn>& turns, int first, int last) {
  std::int64_t begun = 0, done = 0, most = 0;
  for (const Turn& turn : turns) {
    if (turn.half == first) ++begun;
    most = std::max(most, begun - done);
    if (turn.half == last) ++done;
  }
  return most;
}

std::int64_t most_on_their_way(const PipelineOrder& order, int peer, int sender_half, int first,
                               int last) {
  const PipelineOrder::Peer& sender = order.of_peers.at(peer);
  std::int64_t done = 0, most = 0;
  for (std::size_t t = 0; t < order.own.size(); ++t) {
    if (order.own[t].half == first) {
      const auto sent = std::count_if(sender.turns.begin(), sender.turns.begin() + sender.needed[t],
                                      [&](const Turn& turn) { return turn.half == sender_half; });
      most = std::max<std::int64_t>(most, sent - done);
    }
    if (order.own[t].half == last) ++done;
  }
  return most;
}

Messages::~Messages() {
  if (begun_ == 0) return;
  for (const Line& line : lines_) {
    try {
      line.ranks->wait(std::ranges::max(line.tickets));
    } catch (const std::exception&) {
      // It came to nothing, which whoever is told of it knows.
    }
  }
}

comm::Communicator& Messages::ranks_of(const MessageStep& message) const {
  for (const auto& [stream, ranks] : streams_) {
    const auto [own, peer] =
        message.is_send ? std::pair(stream.from, stream.to) : std::pair(stream.to, stream.from);
    const bool is_own = ranks->rank() == (own < peer ? 0 : 1);
    if (stream.name == message.stream && peer == message.peer && is_own) return *ranks;
  }
  fail("a program has messages {} rank {} along \"{}\": expected ranks to be joined for them",
       message.is_send ? "to" : "from", message.peer, message.axis);
}

namespace {

comm::Operation operation_of(const MessageStep& message, std::byte* data, std::size_t bytes,
                             const comm::Communicator& ranks) {
  const int peer = 1 - ranks.rank();
  if (message.is_send) return comm::send({data, bytes}, peer, message.label);
  return comm::receive({data, bytes}, peer, message.label);
}

// In the order of lines.
std::vector<const ProgramStep*> messages_of(const Program& program) {
  std::vector<const ProgramStep*> steps;
  for (const ProgramStep& step : program.microbatch) {
    if (step.message) steps.push_back(&step);
  }
  std::ranges::sort(steps, {}, [](const ProgramStep* step) {
    return std::tuple(step->message->is_send, step->message->number, step->message->peer);
  });
  return steps;
}

}  // namespace

void check_messages(const Program& program, const Program& like) {
  const auto is_like = [](const ProgramStep* one, const ProgramStep* other) {
    const MessageStep &a = *one->message, &b = *other->message;
    return a.is_send == b.is_send && a.peer == b.peer && a.stream == b.stream &&
           a.number == b.number && a.sender_half == b.sender_half;
  };
  if (std::ranges::equal(messages_of(program), messages_of(like), is_like)) return;
  fail(
      "parallel.mesh: along pipe, a shorter microbatch would have other messages than the others, "
      "since its kernels are others: expected train.batch, train.leaves and train.microbatch that "
      "divide the training set, and the test set, into equal ones");
}

// Programs of other sizes have the same messages, at other places (check_messages).
const std::vector<const ProgramStep*>& Messages::steps_of(const Program& program) {
  const auto [found, is_new] = steps_.try_emplace(&program);
  if (is_new) found->second = messages_of(program);
  return found->second;
}

void Messages::find_lines(const Program& program) {
  for (const ProgramStep* const step : steps_of(program)) {
    const Address& address = step->operands[0];
    CONCORD_CHECK(address.region == Region::kCarried, "a message of {}", step->layer);
    Line line{.step = step,
              .half = program.graph.node(step->node).half,
              .last = program.pools[static_cast<std::size_t>(address.part)].last,
              .slots = memory_.slots(program, *step),
              .ranks = &ranks_of(*step->message)};
    line.tickets.resize(static_cast<std::size_t>(line.slots), 0);
    lines_.push_back(std::move(line));
  }
}

// In the order in which peers send: of each stream.
std::vector<Messages::Queue> Messages::queues_of(const PipelineOrder& order) const {
  std::vector<Queue> queues;
  for (const auto& [peer, of_peer] : order.of_peers) {
    std::map<std::string_view, Queue> by_stream;
    for (const Turn& turn : of_peer.turns) {
      std::vector<std::size_t> sent;  // lines
      for (std::size_t l = 0; l < lines_.size(); ++l) {
        const MessageStep& message = *lines_[l].step->message;
        if (!message.is_send && message.peer == peer && message.sender_half == turn.half) {
          sent.push_back(l);
        }
      }
      std::ranges::sort(sent, {}, [&](std::size_t l) { return lines_[l].step->message->number; });
      for (const std::size_t l : sent) {
        by_stream[lines_[l].step->message->stream].arrivals.push_back({l, turn.microbatch});
      }
    }
    for (auto& [stream, queue] : by_stream) queues.push_back(std::move(queue));
  }
  return queues;
}

void Messages::begin(const PipelineOrder& order, const Programs& programs, const Memory& memory) {
  memory_ = memory;
  programs_ = programs;
  if (lines_.empty()) find_lines(*programs.programs[0]);
  auto& queues = queues_[{order.microbatches, order.most_microbatches}];
  if (queues.empty()) queues = queues_of(order);
  if (begun_ == 0) {
    done_.assign(programs.programs[0]->halves.size(), 0);
    for (Line& line : lines_) std::ranges::fill(line.tickets, 0);
    asking_.resize(queues.size());
    for (Queue& queue : asking_) {
      queue.arrivals.clear();
      queue.asked = 0;
    }
  }
  for (std::size_t q = 0; q < queues.size(); ++q) {
    auto& [arrivals, asked] = asking_[q];
    arrivals.erase(arrivals.begin(), arrivals.begin() + static_cast<std::ptrdiff_t>(asked));
    asked = 0;
    for (const Arrival& arrival : queues[q].arrivals) {
      arrivals.push_back({arrival.line, begun_ + arrival.microbatch, programs.step});
    }
  }
  begun_ += order.microbatches;
  ask();
}

// For what there is memory: the half that used it last has been run for the microbatch before. A
// communicator remembers only so many operations.
void Messages::ask() {
  constexpr std::int64_t kMostAhead = 64;
  for (Queue& queue : asking_) {
    for (; queue.asked < queue.arrivals.size(); ++queue.asked) {
      const Arrival& arrival = queue.arrivals[queue.asked];
      Line& line = lines_[arrival.line];
      if (arrival.microbatch >= line.slots + done_[static_cast<std::size_t>(line.last)]) break;
      if (arrival.microbatch >= kMostAhead + done_[static_cast<std::size_t>(line.half)]) break;
      if (arrival.step) line.ranks->set_step(*arrival.step);
      const Program& program = program_of(arrival.microbatch);
      const ProgramStep& step = *steps_of(program)[arrival.line];
      line.tickets[static_cast<std::size_t>(arrival.microbatch % line.slots)] = line.ranks->start(
          operation_of(*step.message, memory_.place(program, step, arrival.microbatch),
                       step.message->bytes, *line.ranks));
    }
  }
}

void Messages::begin_half(int half, std::int64_t microbatch) {
  for (Line& line : lines_) {
    if (!line.step->message->is_send || line.half != half) continue;
    const comm::Ticket ticket = line.tickets[static_cast<std::size_t>(microbatch % line.slots)];
    if (ticket != 0) line.ranks->wait(ticket);
  }
}

void Messages::deliver(const ProgramStep& step, std::int64_t microbatch, std::byte* data) {
  const MessageStep& message = *step.message;
  const auto& steps = steps_of(program_of(microbatch));
  const auto found = std::ranges::find(steps, &step);
  CONCORD_CHECK(found != steps.end(), "a message of {}", step.layer);
  const auto line = lines_.begin() + (found - steps.begin());
  comm::Ticket& ticket = line->tickets[static_cast<std::size_t>(microbatch % line->slots)];
  if (message.is_send) {
    ticket = line->ranks->start(operation_of(message, data, message.bytes, *line->ranks));
  } else {
    CONCORD_CHECK(ticket != 0, "a message of {} was not asked for", step.layer);
    line->ranks->wait(ticket);
  }
}

void Messages::end_half(int half, std::int64_t microbatch) {
  CONCORD_CHECK(done_[static_cast<std::size_t>(half)] == microbatch,
                "microbatches are computed in order");
  ++done_[static_cast<std::size_t>(half)];
  ask();
}

void Messages::end() {
  begun_ = 0;
  for (const Queue& queue : asking_) CONCORD_CHECK(queue.asked == queue.arrivals.size());
  for (const Line& line : lines_) {
    if (!line.step->message->is_send) continue;  // else it has been waited for
    line.ranks->wait(std::ranges::max(line.tickets));
  }
}

void Messages::start(const MessageStep& message, std::byte* data) {
  comm::Communicator& ranks = ranks_of(message);
  started_.push_back({&ranks, ranks.start(operation_of(message, data, message.bytes, ranks))});
}

void Messages::wait() {
  for (const Started& started : started_) started.ranks->wait(started.ticket);
  started_.clear();
}

}  // namespace concord
