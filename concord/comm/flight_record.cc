#include "concord/comm/flight_record.h"

#include <fmt/format.h>

#include <algorithm>

namespace concord::comm {
namespace {

constexpr std::size_t kMostLines = 64;

std::string progress(const Record& record, double now) {
  const std::string started = fmt::format("started {:.3f} s ago", now - record.started);
  if (record.began == 0) return started + ", waits";
  const std::string begun = fmt::format("{}, began {:.3f} s ago", started, now - record.began);
  if (record.ended == 0) return begun + ", not done";
  return fmt::format("{}, done in {:.6f} s", begun, record.ended - record.began);
}

}  // namespace

std::vector<std::string> described(const std::vector<Record>& records, double now) {
  std::vector<std::string> lines;
  const std::size_t first = records.size() - std::min(records.size(), kMostLines);
  for (std::size_t i = first; i < records.size(); ++i) {
    const Operation& op = records[i].operation;
    const std::string_view axis = records[i].axis.text();
    lines.push_back(fmt::format("step {}: {}{}{}, {} bytes; {}", records[i].step,
                                name_of(op.kind, op.label), axis.empty() ? "" : " along ", axis,
                                op.bytes, progress(records[i], now)));
  }
  return lines;
}

}  // namespace concord::comm
