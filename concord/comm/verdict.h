// Verdict: how the ranks of a job come to one line about what went wrong, where all that they share
// is the rendezvous store.
//
// Who sees that something is wrong pronounces it in the store, and the first to do so is right; a
// thread of each rank looks a few times a second whether somebody has. A rank that waits in vain
// does not know for whom: the one whose message it wants may itself wait for a third, in the same
// operation or in one of another group of ranks. So it calls the roll: the others say how far they
// are, and at fault is who does not answer (stopped, or cut off), who is behind and waits for
// nobody, or who does something else.
//
// A *circle* is a set of ranks that meet in operations: all of the job, which is circle 0, or this
// rank's group along an axis.
//
// Thread safety: all functions may be called from any thread.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "concord/comm/operation.h"
#include "concord/net/store.h"
#include "concord/net/transport.h"

namespace concord::comm {

class Verdict {
 public:
  // Collective: tells the others which process this is. `store` outlives it. `heard` is called,
  // once, from another thread, with what a rank has pronounced.
  Verdict(int rank, int size, net::StoreClient& store, Deadline deadline,
          std::function<void(const std::string&)> heard);
  Verdict(const Verdict&) = delete;
  Verdict& operator=(const Verdict&) = delete;
  ~Verdict();

  // Ranks for which `groups` has the same number meet along another axis from here on. Returns the
  // circle; every rank makes the same ones in the same order.
  int add_circle(std::vector<int> groups);

  // This rank enters an operation in which all of the circle take part, the one with this number;
  // or one with rank `peer` alone; and has left it.
  void enter(int circle, std::uint64_t number, const Call& call);
  void enter_message(int circle, int peer, const Call& call);
  void leave(int circle);

  // All return the line that counts: this one, or that of a rank which was earlier. Where the store
  // does not answer it is this one.
  std::string pronounce(const std::string& line);
  // What a message of the circle's operation entered last has come to. `seconds`: how long it was
  // waited for.
  std::string of_peer(int circle, const net::PeerError& error, double seconds);
  // Of an operation in which ranks do not understand each other, as `line` says if nothing better
  // is found out.
  std::string of_misunderstanding(int circle, const std::string& line);

 private:
  static constexpr std::size_t kMostCircles = 32;
  // Of a rank in a circle.
  struct Place {
    std::uint64_t number = 0;  // of operations entered
    std::uint64_t time = 0;    // counts those of all circles
    bool is_inside = false;    // of the last
    Call last;
    int peer = -1;  // in a message with that rank
    Call message;
    const Call& current() const { return peer >= 0 ? message : last; }
  };
  using Whereabouts = std::array<Place, kMostCircles>;
  using Roll = std::vector<std::optional<Whereabouts>>;  // by rank

  std::string key(std::string_view what) const;
  void watch();
  void answer(std::int64_t roll);
  // Until all of `awaited` have answered, or the seconds are over.
  Roll call_roll(std::span<const int> awaited, double seconds);
  Roll call_roll();
  std::string of_lost(int circle, int other);
  void remember(const std::string& line);
  std::optional<std::string> known() const;
  std::string name_of_rank(int r) const;
  // Which of the ranks that `r` meets in the circle keeps it there: one that is silent, the one
  // that is most behind, or whose message it is; -1 where all have come.
  int missing_in(const Roll& roll, int circle, int r) const;
  std::string behind_or_silent(const Roll& roll, int circle, int awaited, double seconds) const;
  std::string disagreement_in(const Roll& roll, int circle) const;
  Whereabouts whereabouts() const;
  Place place(int circle) const { return whereabouts()[static_cast<std::size_t>(circle)]; }

  int rank_, size_;
  net::StoreClient& store_;
  std::string prefix_;              // of keys
  std::vector<std::string> names_;  // of the ranks' processes
  std::function<void(const std::string&)> heard_;
  mutable std::mutex mutex_;
  std::vector<std::vector<int>> circles_;  // by circle and rank: which ones meet
  Whereabouts whereabouts_;
  std::uint64_t entered_ = 0;
  std::optional<std::string> line_;  // that counts
  bool is_ending_ = false;
  std::condition_variable tick_;
  std::thread watcher_;
};

}  // namespace concord::comm
