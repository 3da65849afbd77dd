#include "concord/net/console.h"

#include <unistd.h>

#include <cstdio>

namespace concord::net {

Console::Console(int ranks)
    : terminal_(isatty(STDERR_FILENO) == 1),
      splitters_(static_cast<std::size_t>(ranks)),
      logs_(ranks) {}

void Console::said(int rank, std::string_view bytes) {
  if (rank == 0) write(shown(bytes));
  add(rank, splitters_[static_cast<std::size_t>(rank)].add(bytes));
}

void Console::closed(int rank) {
  const std::string rest = splitters_[static_cast<std::size_t>(rank)].rest();
  if (!rest.empty()) add(rank, {rest});
}

void Console::add(int rank, const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) {
    const bool is_for_log = line.starts_with(kForLogAlone);
    text += line.substr(is_for_log ? 1 : 0) + '\n';
    if (is_for_log) continue;
    if (rank == 0) {
      lines_.first_said(line);
    } else {
      lines_.add(rank, line);
    }
  }
  if (!text.empty()) logs_.write(rank, text);
}

void Console::say(const std::string& line) { print_line("concord: " + line); }

void Console::print(bool everything) {
  lines_.take(everything, [this](const std::string& line) { print_line(line); });
}

void Console::keep_logs(const std::filesystem::path& directory) {
  const std::filesystem::path kept = logs_.keep(directory);
  if (!kept.empty()) say("what each rank has said is kept in " + kept.string());
}

// Of what rank 0 says; valid until the next call.
std::string_view Console::shown(std::string_view bytes) {
  shown_.clear();
  for (const char byte : bytes) {
    if (byte == kForLogAlone) amid_log_ = true;
    if (!amid_log_) shown_ += byte;
    if (byte == '\n') amid_log_ = false;
  }
  return shown_;
}

void Console::write(std::string_view bytes) {
  if (bytes.empty()) return;
  std::fwrite(bytes.data(), 1, bytes.size(), stderr);
  amid_line_ = bytes.back() != '\n';
}

// Beside a live line of rank 0, which it draws again.
void Console::print_line(const std::string& line) {
  if (amid_line_) write(terminal_ ? "\r\033[K" : "\n");
  write(line + '\n');
  amid_line_ = false;
}

}  // namespace concord::net
