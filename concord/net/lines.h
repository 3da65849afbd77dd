// What the ranks of a job say, as lines, for people: equal lines of several ranks are one.
// Used by one thread.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "concord/base/deadline.h"

namespace concord::net {

// {1, 2, 4} -> "1-2,4". The ranks are in order.
std::string list_of(const std::vector<int>& ranks);
// "rank 1", "ranks 1-3"
std::string named(const std::vector<int>& ranks);

// A line that begins so is for the log of its rank alone, and not shown.
constexpr char kForLogAlone = '\x1e';

// Cuts a stream of bytes into lines.
class LineSplitter {
 public:
  // The lines that these bytes end, without their ends. Of a line that was drawn again and again
  // (by '\r', as a live progress line is) what stood there last.
  std::vector<std::string> add(std::string_view bytes);
  // What has not ended; "" for nothing.
  std::string rest();

 private:
  std::string partial_;
};

// Lines of the ranks but the first, held back a moment, so that equal ones are printed once. What
// rank 0 has just said itself is not repeated.
class Lines {
 public:
  void add(int rank, const std::string& line);
  void first_said(const std::string& line);
  // Hands on what was held long enough, or everything: "ranks 1-3: ...".
  void take(bool everything, const std::function<void(const std::string&)>& print);
  bool empty() const { return waiting_.empty(); }

 private:
  struct Waiting {
    std::string line;
    std::vector<int> ranks;  // in order
    Deadline until;
  };
  struct Said {
    std::string line;
    Deadline until;
  };
  bool is_said(const Waiting& waiting) const;

  std::vector<Waiting> waiting_;
  std::vector<Said> said_;  // by rank 0, a moment ago
};

}  // namespace concord::net
