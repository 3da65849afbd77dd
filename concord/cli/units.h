// Numbers for people: three significant digits and a unit.
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace concord::cli {

// "950", "1.23 k", "61.1 M", "2.40 G": powers of 1000. Append what is counted: "FLOP/s".
std::string format_count(double value);
// "512 B", "1.50 KiB", "23.4 MiB": powers of 1024.
std::string format_bytes(double bytes);
// "830 µs", "2.50 ms", "12.4 s", "3 min 05 s", "2 h 10 min".
std::string format_duration(double seconds);
// "93.7 %".
std::string format_percent(double fraction);
// "1 thread", "2 threads"; a plural that is not the word and an s is given.
std::string counted(std::int64_t count, std::string_view word, std::string_view plural = {});

}  // namespace concord::cli
