// TensorBoard event files: scalars over steps, as TFRecord frames of Event messages.
// Sources: TensorFlow's record_writer.h (framing: length, masked CRC-32C, data, masked CRC-32C) and
// event.proto, summary.proto; Protocol Buffers' wire encoding.
// Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "concord/base/file.h"

namespace concord::formats {

struct Scalar {
  std::string_view tag;  // "loss/train"; the part before '/' groups charts
  float value = 0;
};

class EventWriter {
 public:
  // Creates an event file of its own in `directory`, which must exist; TensorBoard reads all files
  // of a directory as one run. `first_step` is the first that will be written: what an earlier file
  // holds from that step on (a run that resumes repeats it) is dropped by TensorBoard. Throws Error
  // when the file cannot be written.
  EventWriter(const std::filesystem::path& directory, std::int64_t first_step);

  // Appends the scalars of one step, stamped with the present time. Throws Error when it cannot.
  void write(std::int64_t step, std::span<const Scalar> scalars);

 private:
  OutputFile file_;
};

// The frame that holds `data` in a TFRecord file.
std::string tfrecord_frame(std::string_view data);

}  // namespace concord::formats
