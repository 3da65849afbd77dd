// Meeting: where the ranks of one machine meet, in memory that all of them see. Operation after
// operation each of them tells the others what it brings, and waits until all have come; who does
// not come is named.
//
// The operations have numbers, their tickets: 1, 2, ... Each rank keeps two counters: `arrived`,
// the ticket of the last operation that it has entered, and `left`, that of the last in which it
// has done its part. What it brings is in its *message*, of which there are two, used by turns:
// nobody can be two tickets ahead of a rank that still reads. The same holds for its *stage*,
// memory for a copy of what others are to read.
//
// Beside that one rank can write *letters* to another, which no third one takes notice of.
//
// Groups of the ranks have meetings of their own, which end with that of the job: who gives up
// anywhere says so there. There it also says for whom it waits in vain, in any of them, so that one
// who waits for it can tell who keeps it.
//
// Used by one thread at a time, but for abort().
#pragma once

#include <array>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/deadline.h"
#include "concord/comm/operation.h"
#include "concord/net/axis_group.h"
#include "concord/net/futex.h"
#include "concord/net/neighbour.h"
#include "concord/net/shared_memory.h"

namespace concord::comm {

// Where something lies: in which of its rank's regions.
struct Place {
  static constexpr std::uint64_t kNowhere = ~std::uint64_t{0};
  std::uint64_t region = kNowhere, offset = 0;
};

struct Message {
  static constexpr std::size_t kMostParts = 64;  // more than twice the levels of any tree
  struct PlacedPart {
    Subtree node;
    Place place;
  };

  Call call;
  std::uint32_t flags;
  Place in, out;
  std::uint64_t part_count;
  std::array<PlacedPart, kMostParts> parts;
};

// A message to another rank, or a piece of it: where it lies, or kNowhere for in the envelope.
struct Letter {
  Call call;
  Place place;
};

class Meeting {
 public:
  static constexpr int kMostRanks = 256;
  static constexpr std::size_t kStage = 4 << 10;  // bytes

  // What the ranks share; rank 0 makes it, of zeros.
  static std::size_t bytes(int size);

  // Throws Error where another process says that it is this rank.
  Meeting(int rank, int size, net::SharedMemory memory, double timeout_seconds);
  // Of a group of the ranks of `job`, which outlives it.
  Meeting(int rank, const net::AxisGroup& group, net::SharedMemory memory, double timeout_seconds,
          Meeting& job);
  ~Meeting();

  // The message for the next operation, to be filled before enter(), and this rank's stage in it.
  Message& next_message();
  std::byte* next_stage() { return stage(rank_, ticket_ + 1); }
  // Waits until all ranks have come. Throws RankError when one of them cannot come any more, has
  // not come when the time is over, or came for something else. `patient`: without using the core.
  void enter(bool patient);
  // Waits until all ranks have done their part of it.
  void leave(bool patient);

  // What rank r has brought to the operation that was entered last.
  const Message& message_of(int r) const { return rank(r).messages[ticket_ % 2]; }
  const std::byte* stage_of(int r) { return stage(r, ticket_); }

  // Letters to rank `to`, one after another, arrive in order; two can be unread. One is sent in
  // three steps: wait until at most one is unread, fill the envelope, post.
  static constexpr std::size_t kEnvelope = 4 << 10;  // bytes
  void wait_until_read(int to, std::uint32_t unread, bool patient);
  std::byte* next_envelope(int to);
  void post(int to, const Letter& letter);
  // The next letter from rank `from` and its envelope; until put_away(). Throws RankError as
  // enter().
  const Letter& next_letter(int from, const Call& expected, bool patient);
  const std::byte* envelope_from(int from);
  void put_away(int from);

  void abort(std::string_view reason);
  // Throws RankError where a rank has aborted.
  void check_aborted() const;

 private:
  using Counter = net::SharedCounter;

  static constexpr std::size_t kMostMeetings = 32;  // of a rank
  // Of a rank that has slept and waits on.
  struct Waiting {
    Counter for_rank;  // its number in the job, and 1; 0: it does not wait
    Counter looks;     // counts how often it has looked again
  };

  struct alignas(128) Rank {
    Counter arrived, left;
    Counter sleepers;  // who wait for one of the two
    net::Neighbour self;
    std::array<Waiting, kMostMeetings> waiting;  // by number of the meeting; of a job's meeting
    std::array<Message, 2> messages;
    alignas(64) std::array<std::array<std::byte, kStage>, 2> stages;
    std::array<std::array<std::byte, kEnvelope>, 2> envelopes;
  };
  struct alignas(64) Mailbox {  // from one rank to another
    Counter posted, read;
    Counter sleepers;  // who waits for one of the two
    std::array<Letter, 2> letters;
  };
  struct Control {
    Counter abort_begun, aborted;
    std::uint32_t aborted_ticket;  // the first operation that comes to nothing,
    std::uint32_t aborted_by_own;  // where it is one of these ranks that has aborted
    std::array<char, 1024> abort_reason;
    std::array<Rank, kMostRanks> ranks;  // of which the first `size` are there; then the mailboxes
  };

  Meeting(int rank, int size, const net::AxisGroup& group, net::SharedMemory memory,
          double timeout_seconds, Meeting* job);

  Control& control() const { return *reinterpret_cast<Control*>(memory_.data()); }
  Rank& rank(int r) const { return control().ranks[static_cast<std::size_t>(r)]; }
  std::byte* stage(int r, std::uint32_t ticket) { return rank(r).stages[ticket % 2].data(); }
  Mailbox& mailbox(int from, int to) const;
  int in_job(int r) const { return group_.in_job(r); }
  Meeting& job() { return job_ == nullptr ? *this : *job_; }
  const Meeting& job() const { return job_ == nullptr ? *this : *job_; }
  Waiting& waiting_of(int rank_of_job, std::size_t meeting) {
    return job().rank(rank_of_job).waiting[meeting];
  }
  bool is_aborted() const { return job().control().aborted.load(std::memory_order_acquire) != 0; }
  void wait_for_all(Counter Rank::*counter, bool patient);
  void look_for_trouble(int missing, Counter Rank::*counter, const Deadline& deadline);
  void wait_for_mail(const Counter& counter, std::uint32_t value, Mailbox& box, int other,
                     const Call& call, bool patient);
  // For rank `other`. check() looks for a reason to give up, trouble() for another once this has
  // slept.
  template <typename Check, typename Trouble>
  void wait_until(const Counter& counter, std::uint32_t value, Counter& sleepers, int other,
                  bool patient, Check check, Trouble trouble);
  [[noreturn]] void give_up_ended(int other, const std::string& what);
  [[noreturn]] void give_up_late(int other, std::string_view verb, const std::string& what);
  // Who keeps a rank, which itself waits for somebody, and so on; all by their numbers in the job.
  // `last_kept`: the last on the way, -1 where it is this rank itself.
  int who_keeps(int rank_of_job, int& last_kept);
  std::string name_of(int rank_of_job) const;
  void check_same_operation();
  void check_entered() const;
  void check_awaited() const;
  [[noreturn]] void give_up(const std::string& reason);

  int rank_, size_;
  net::AxisGroup group_;
  Meeting* job_;             // null: this is it
  std::size_t number_ = 0;   // of the rank's meetings
  std::mutex groups_mutex_;  // of a job: abort() comes from any thread
  std::vector<Meeting*> groups_;
  std::size_t groups_made_ = 0;
  double timeout_seconds_;
  net::SharedMemory memory_;
  net::Glances::Manner manner_ = net::Glances::Manner::kSleep;
  std::vector<net::Watch> watches_;  // of the ranks; who has not come yet is unknown
  std::uint32_t ticket_ = 0;
  std::atomic<std::uint32_t> next_ticket_ = 1;  // of the operation that it is not done with
};

}  // namespace concord::comm
