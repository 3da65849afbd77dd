// What a launcher and its agent on another host (agent.h) say to each other, over the standard
// streams of the program that connects them: frames, after a line by which the agent is known
// among what else a login may print.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "concord/base/descriptor.h"

namespace concord::net {

struct Frame {
  enum class Kind : char {
    // Of the launcher:
    kJob = 'j',     // what is to be run, as JSON
    kStart = 's',   // where the store is: begin
    kSignal = 'k',  // for the ranks: its number is `rank`
    // Of the agent:
    kReached = 'r',  // of the places of the store, those that it reaches
    kSaid = 'o',  // RankListener::said, printed and ended; of the last `bytes` is "STATUS PROCESS"
    kPrinted = 'p',
    kEnded = 'e',
    kFailed = 'x',  // it cannot go on: why
  };
  Kind kind;
  std::int32_t rank = 0;
  std::string bytes;
};

// "CONCORD AGENT 0.1.0\n"; the version alone tells whether two understand each other.
std::string agent_greeting(std::string_view version);

// Writes all of it; throws Error where the other end is gone.
void write_all(const Descriptor& to, std::string_view bytes);
void write_frame(const Descriptor& to, const Frame& frame);

// Puts frames together from bytes as they come.
class FrameReader {
 public:
  void add(std::string_view bytes) { bytes_.append(bytes); }
  // Drops what stands before the line that begins with `word`, and returns that line's rest;
  // nullopt where it has not come.
  std::optional<std::string> take_line_after(std::string_view word);
  // nullopt where none is complete. Throws Error for what is no frame.
  std::optional<Frame> take();

 private:
  std::string bytes_;
};

}  // namespace concord::net
