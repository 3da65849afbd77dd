// Messages: what ranks along "pipe" send each other while they compute the halves of their
// microbatches (parallel/stages.h). A stream carries messages from one rank to another in the order
// in which the one sends them: microbatch by microbatch as its halves are run, and within a half by
// number. The other asks for each in that order as soon as there is memory for it, long before it
// is read; what is sent goes while the sender computes on.
//
// In the steady state nothing is allocated. Used by one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "concord/comm/communicator.h"
#include "concord/parallel/plan.h"
#include "concord/runtime/program.h"

namespace concord {

struct Turn {
  int half = 0;
  std::int64_t microbatch = 0;
  friend bool operator==(const Turn&, const Turn&) = default;
};

// In which order the ranks run the halves of a step's microbatches.
struct PipelineOrder {
  struct HalfName {
    std::string kind;  // "forward", "backward", "weights"
    int chunk = 0;
  };
  struct Peer {
    std::vector<Turn> turns;
    std::vector<std::int64_t> needed;  // by own turn: how many of those have to be done before it
  };
  std::vector<Turn> own;
  std::map<int, Peer> of_peers;  // by their places along the axis
  std::int64_t microbatches = 0;
  // Of those that ranks with other leaves have, of which this one may have fewer: own turns, and
  // among them those of microbatches that it does not have.
  std::int64_t most_microbatches = 0;
  std::vector<Turn> of_all = {};
  std::vector<HalfName> names = {};  // of this rank's halves, for traces
};

// How many microbatches have something at once that lives from half `first` to half `last`.
std::int64_t most_at_once(const std::vector<Turn>& turns, int first, int last);
// How many messages a peer has sent at least, in its half `sender_half`, that this rank has not
// done with, when it comes to its half `first`: with memory for fewer, both would wait forever.
std::int64_t most_on_their_way(const PipelineOrder& order, int peer, int sender_half, int first,
                               int last);

// Throws Error where the microbatches of a program, which has fewer samples than those of another,
// have other messages: it may be computed in other layouts.
void check_messages(const Program& program, const Program& like);

class Messages {
 public:
  Messages() = default;
  // Waits for what has not come to its end(), such as after an error: it reads and writes memory of
  // others. For after Communicator::abort().
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  // By stream, the two ranks of each: those of which this one is one.
  void join(std::map<parallel::Stream, comm::Communicator*> streams) {
    streams_ = std::move(streams);
  }

  // Where the value of a message step lies for a microbatch, and for how many at once there is
  // memory.
  struct Memory {
    std::function<std::byte*(const Program&, const ProgramStep&, std::int64_t microbatch)> place;
    std::function<std::int64_t(const Program&, const ProgramStep&)> slots;
  };
  // By microbatch, from `first` on. Where steps overlap, `step` is that of those that begin, and
  // what is asked for says so (Communicator::set_step); else it says what the communicator does.
  struct Programs {
    std::span<const Program* const> programs;
    std::int64_t first = 0;
    std::optional<std::int64_t> step = std::nullopt;
  };
  // A step begins: asks for what there is memory for. Where those before it have not come to their
  // end() its microbatches are numbered on, and `programs` has all that are still to be run.
  void begin(const PipelineOrder& order, const Programs& programs, const Memory& memory);
  // The half is about to write where messages of an earlier microbatch may still be on their way.
  void begin_half(int half, std::int64_t microbatch);
  void deliver(const ProgramStep& step, std::int64_t microbatch, std::byte* data);
  // The half has been run: memory is free again.
  void end_half(int half, std::int64_t microbatch);
  // Waits for all that this rank has sent.
  void end();

  // Outside of microbatches: done when wait() returns.
  void start(const MessageStep& message, std::byte* data);
  void wait();

 private:
  // One message of every microbatch: the step is of the first program.
  struct Line {
    const ProgramStep* step = nullptr;
    int half = 0;  // that sends or reads it
    int last = 0;  // until which it is needed
    std::int64_t slots = 1;
    comm::Communicator* ranks = nullptr;
    std::vector<comm::Ticket> tickets;  // by slot
  };
  struct Arrival {
    std::size_t line;
    std::int64_t microbatch;
    std::optional<std::int64_t> step = std::nullopt;
  };
  struct Queue {  // of a stream to this rank
    std::vector<Arrival> arrivals;
    std::size_t asked = 0;
  };

  comm::Communicator& ranks_of(const MessageStep& message) const;
  void find_lines(const Program& program);
  const std::vector<const ProgramStep*>& steps_of(const Program& program);
  const Program& program_of(std::int64_t microbatch) const {
    return *programs_.programs[static_cast<std::size_t>(microbatch - programs_.first)];
  }
  std::vector<Queue> queues_of(const PipelineOrder& order) const;
  void ask();

  std::map<parallel::Stream, comm::Communicator*> streams_;
  std::vector<Line> lines_;
  std::map<const Program*, std::vector<const ProgramStep*>> steps_;  // in the order of the lines
  // By microbatches of a step, and by the most that a rank has of it.
  std::map<std::pair<std::int64_t, std::int64_t>, std::vector<Queue>> queues_;
  std::vector<Queue> asking_;
  std::int64_t begun_ = 0;  // microbatches, since end()
  Programs programs_;
  Memory memory_;
  std::vector<std::int64_t> done_;  // by half: microbatches
  struct Started {
    comm::Communicator* ranks;
    comm::Ticket ticket;
  };
  std::vector<Started> started_;
};

}  // namespace concord
