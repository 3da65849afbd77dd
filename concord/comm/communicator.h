// Communicator: what the ranks of a job do together. It is passed to whoever needs it; there is no
// global one. Alone, a rank is a job of size 1, for which every operation is the identity.
//
//   ranks.all_reduce(values, values, "loss");                           // waits for it
//   const Ticket sum = ranks.start(tree_sum(parts, 0, bytes, out));     // goes on meanwhile
//   ... ranks.wait(sum);
//
// Operations (operation.h) are done in the order in which they are started, the same on every rank.
// Each ends, on every rank, in its result or in a RankError that names the rank at fault, what was
// asked and in which step: a rank that has ended, is stopped, calls something else, or gave up
// (abort). Any other Error is of this rank alone, which then calls abort(). After either a
// communicator is of no use.
//
// split() gives the communicators of groups of the ranks, those along an axis of the mesh, which
// are this one's. Ranks have other numbers there; what people are told has those of the job. What
// goes wrong in one of them ends all: the job's communicator and those of all its groups.
//
// How it works: an operation is a blocking function that a backend supplies (execute()), and in
// front of it is a queue. A thread of the communicator's own takes from it what was started;
// whoever waits for an operation that nobody has begun does it himself. The queue keeps what is
// done: it is the flight recorder.
//
// Thread safety: used by one thread of the rank, but for abort().
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "concord/base/error.h"
#include "concord/comm/operation.h"
#include "concord/graph/mesh.h"
#include "concord/net/axis_group.h"
#include "concord/tensor/buffer.h"

namespace concord::comm {

// An operation that came to nothing because of another rank.
class RankError : public Error {
 public:
  using Error::Error;
};

// The number of an operation: 1, 2, ... in the order in which they were started.
using Ticket = std::uint64_t;

struct Result {
  const std::byte* sum = nullptr;  // of a tree sum
  std::uint32_t flags = 0;         // of an agreement
  bool in_place = false;           // what the ranks brought was read where it lies
};

// An operation in the flight recorder. Times are now_seconds(); 0 where it has not come so far.
struct Record {
  Operation operation;
  Label axis;  // of a group
  std::int64_t step = 0;
  double started = 0, began = 0, ended = 0;
  Result result;
};

class Communicator {
 public:
  virtual ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_first() const { return rank_ == 0; }

  // Named in errors from here on.
  void set_step(std::int64_t step);

  // Collective: the ranks that differ from this one along the axis alone, in the order of their
  // coordinates; an axis that is not in the mesh has extent 1. Made by the first call for an axis,
  // and this communicator's own. Throws Error where the mesh is not of these ranks, the same on all
  // of them and in all calls, and what join() throws.
  Communicator& split(const Mesh& mesh, std::string_view axis);
  // Collective: the ranks of the same color, in the order of their numbers; `colors` is by rank and
  // the same on all of them, as is `name`, by which people are told of the group. Its operations
  // wait for none of this communicator's. Made by the first call for a name.
  Communicator& split(std::string_view name, std::span<const int> colors);

  // Collective. Memory of this rank, zero-initialised, that other ranks read fast; parts of a tree
  // sum must lie in some. `bytes` may differ from rank to rank. It lives as long as the
  // communicator, or until unshare().
  std::byte* share(std::size_t bytes);
  // Of each rank for itself: what share() returned is no more. For when no operation uses it.
  void unshare(std::byte* data);
  // Collective. Memory that all ranks see as one, zero-initialised; `bytes` is the same on every
  // rank. Where there is none in common it throws Error.
  virtual bool has_common_memory() const { return false; }
  std::byte* common(std::size_t bytes);

  // Does not wait. Throws Error for what makes no sense (check_operation).
  Ticket start(const Operation& operation);
  // Waits until it is done, and so are those before it.
  Result wait(Ticket ticket);
  Result run(const Operation& operation);

  // These wait.
  void barrier() { run(comm::barrier()); }
  std::uint32_t any_of(std::uint32_t flags) { return run(agreement(flags)).flags; }
  // What rank 0 gives, of any length.
  std::string broadcast(const std::string& value);

  // The calls that the other ranks are in, or make next, end in a RankError that says this.
  virtual void abort(std::string_view reason) = 0;

  // Seconds spent since the communicator was made, in its groups too.
  struct Usage {
    double busy = 0;    // in operations, from a rank's coming to them to their end
    double waited = 0;  // of that, while its own thread waited
    // Bytes of what it has sent to other ranks; 0 where these read its memory. What tells of which
    // operation a message is, is not counted.
    std::uint64_t sent = 0;
  };
  Usage usage() const;
  // Of memory that this rank has for what it tells others: what was shared and what is the
  // backend's own, which grows with the first operations, in groups too. common() is not counted.
  std::size_t bytes() const;
  // The last operations, its own and those of its groups, oldest first: what has ended or begun,
  // and what waits.
  std::vector<Record> flight_record() const;

 protected:
  Communicator(int rank, int size) : rank_(rank), size_(size) {}

  // What a backend supplies. All but abort() are called by one thread at a time, in the order of
  // the tickets. `patient`: nobody waits yet, so nobody's core is to be used for waiting.
  virtual Result execute(const Record& record, bool patient) = 0;
  // Here: memory that nobody else sees.
  virtual std::byte* make_shared(std::size_t bytes);
  virtual void drop_shared(std::byte* data);
  virtual std::byte* make_common(std::size_t bytes);
  virtual std::size_t own_bytes() const { return 0; }
  virtual std::uint64_t own_sent() const { return 0; }
  // The communicator of a group of which this rank is `rank`. All ranks call it, each for its own
  // group; `groups`: by rank of the job, the first rank of its group along that axis.
  struct GroupOptions {
    net::AxisGroup group;
    int rank = 0;
    std::vector<int> groups;
  };
  virtual std::unique_ptr<Communicator> make_group(const GroupOptions& options) = 0;
  // Ends groups and the thread; for the destructor of a backend, after which execute() is gone.
  void stop();

  std::int64_t step() const { return step_; }

 private:
  static constexpr std::size_t kRemembered = 256;  // operations

  struct Split {
    std::string axis;
    std::string ways;                   // which ranks are together, as text
    std::unique_ptr<Communicator> own;  // null: it is this one
  };

  Record& record_of(Ticket ticket) { return records_[ticket % kRemembered]; }
  // Those of a mesh may be this communicator, where they are all ranks.
  enum class Groups : std::uint8_t { kOfMesh, kOfTheirOwn };
  Communicator& split(std::string_view name, std::span<const int> colors, std::string_view ways,
                      Groups groups);
  Ticket enqueue(const Operation& operation);
  void work();
  void execute_next(bool patient);
  Result execute_rounds(const Record& record, bool patient);

  int rank_, size_;
  std::int64_t step_ = 0;
  struct Shared {
    std::byte* data;
    std::size_t bytes;
  };

  std::vector<Split> splits_;
  std::vector<Shared> shared_;
  std::vector<Buffer> buffers_;  // of make_shared()
  std::array<Record, kRemembered> records_;
  std::atomic<Ticket> started_ = 0, done_ = 0;
  std::mutex executing_;                  // held while an operation is executed
  std::atomic<std::uint32_t> turns_ = 0;  // of the thread: how often it has given that back
  std::exception_ptr failure_;            // of an operation: so end all that follow
  std::atomic<double> busy_ = 0;          // of Usage: written with executing_ held,
  double waited_ = 0;                     // and of this rank's own thread
  std::atomic<bool> stopping_ = false;
  std::thread worker_;  // begins with the first start()
};

// A job of one rank.
class Alone final : public Communicator {
 public:
  Alone() : Communicator(0, 1) {}
  ~Alone() override { stop(); }
  void abort(std::string_view) override {}

 private:
  Result execute(const Record& record, bool patient) override;
  std::unique_ptr<Communicator> make_group(const GroupOptions& options) override;

  std::vector<Subtree> nodes_;
  Joins joins_;
};

// a += b: `bytes` of f32.
void add_floats(std::byte* a, const std::byte* b, std::size_t bytes);
// a = the larger of a and b, a where they are equal: `count` numbers. NaN is larger than any.
void keep_larger(float* a, const float* b, std::int64_t count);

}  // namespace concord::comm
