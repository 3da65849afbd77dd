// The trace of a job (runtime/trace.h) as a file that Perfetto and Chrome show: the "Trace Event
// Format" in JSON, complete events; a process for each rank, a thread for each lane.
#pragma once

#include <filesystem>

#include "concord/runtime/trace.h"

namespace concord::formats {

// Throws Error where the file cannot be written.
void write_trace(const std::filesystem::path& path, const JobTrace& trace);

// Throws Error where the file is no trace that write_trace has written. The file is not trusted.
JobTrace read_trace(const std::filesystem::path& path);

}  // namespace concord::formats
