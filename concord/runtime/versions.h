// Versions: states as they are, and as they were before the last updates, for microbatches that
// read them older than they are (docs/pipeline.md, staleness). The version of age 0 is the newest,
// in which an update writes; that of age a is what it was a updates ago, and before the first
// update what it was at the start.
//
// Memory is the Versions' own, each version the same number of bytes. Nothing is allocated once it
// is made. Used by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "concord/tensor/buffer.h"

namespace concord {

class Versions {
 public:
  Versions() = default;
  // Of `bytes` each, zero: the newest, and `older` ones.
  Versions(std::size_t bytes, int older);

  int older() const { return static_cast<int>(updates_.size()) - 1; }
  std::byte* data(int age) const { return memory_.data() + place(age) * bytes_; }
  // How many updates had been done when it was the newest.
  std::int64_t updates(int age) const { return updates_[place(age)]; }

  // Before an update: what is the newest is of age 1 from here on, and the oldest forgotten. There
  // are two of the same until the update has written.
  void keep();
  // All are what the newest is, after so many updates.
  void restart();
  // Each is what it is, and the newest came of so many updates: those that were saved go on.
  void set_updates(std::int64_t updates);

 private:
  std::size_t place(int age) const;

  std::size_t bytes_ = 0;
  Buffer memory_;
  std::vector<std::int64_t> updates_ = {0};  // by place
  std::size_t last_ = 0;                     // place of age 1, before which the older ones lie
};

}  // namespace concord
