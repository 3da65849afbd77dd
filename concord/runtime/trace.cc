#include "concord/runtime/trace.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "concord/base/clock.h"
#include "concord/base/error.h"

namespace concord {

std::string_view name_of(Lane lane) {
  constexpr std::string_view kNames[] = {"compute", "communication", "data", "pipeline"};
  return kNames[static_cast<std::size_t>(lane)];
}

void Trace::add(Lane lane, std::string_view name, std::string_view about, double begin,
                double end) {
  if (events_.size() == events_.capacity()) {
    ++dropped_;
    return;
  }
  events_.push_back({name, about, lane, step_, begin, end});
}

void Trace::add_operations(const comm::Communicator& ranks) {
  for (const comm::Record& record : ranks.flight_record()) {
    if (record.ended == 0 || record.started <= last_start_) continue;
    last_start_ = record.started;
    const comm::Operation& operation = record.operation;
    std::string name(name_of(operation.kind));
    if (!record.axis.text().empty()) name += fmt::format(" ({})", record.axis.text());
    add(Lane::kCommunication, name, operation.label.text(), record.began, record.ended);
  }
}

void Trace::skip_operations(const comm::Communicator& ranks) {
  for (const comm::Record& record : ranks.flight_record()) last_start_ = record.started;
}

// What one rank says at a time that is before another's hearing of it bounds the offset, from both
// sides; the tightest of many bounds count.
double clock_offset(comm::Communicator& ranks) {
  constexpr int kRounds = 50;
  double least = -std::numeric_limits<double>::infinity(), most = -least;
  struct Times {
    double said, heard;
  };
  std::vector<Times> all(static_cast<std::size_t>(ranks.size()));
  for (int round = 0; round < kRounds; ++round) {
    Times own{now_seconds(), 0};
    std::vector<double> said(all.size());
    ranks.run(comm::all_gather(std::as_bytes(std::span(&own.said, 1)),
                               std::as_writable_bytes(std::span(said)), "clocks"));
    own.heard = now_seconds();
    ranks.run(comm::all_gather(std::as_bytes(std::span(&own, 1)),
                               std::as_writable_bytes(std::span(all)), "clocks"));
    most = std::min(most, own.heard - all[0].said);
    least = std::max(least, own.said - all[0].heard);
  }
  return ranks.is_first() ? 0 : (least + most) / 2;
}

JobTrace gather_traces(const Trace& trace, comm::Communicator& ranks) {
  static_assert(std::is_trivially_copyable_v<TraceEvent>);
  const double offset = clock_offset(ranks);
  std::vector<TraceEvent> own(trace.events().begin(), trace.events().end());
  for (TraceEvent& event : own) {
    event.begin -= offset;
    event.end -= offset;
  }
  const std::uint64_t count = own.size();
  std::vector<std::uint64_t> counts(static_cast<std::size_t>(ranks.size()));
  ranks.run(comm::all_gather(std::as_bytes(std::span(&count, 1)),
                             std::as_writable_bytes(std::span(counts)), "trace"));
  const std::size_t most = std::ranges::max(counts);
  own.resize(most);
  std::vector<TraceEvent> all(ranks.is_first() ? most * counts.size() : 0);
  ranks.run(comm::gather(std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(all)), 0,
                         "trace"));
  if (!ranks.is_first()) return {};
  JobTrace job;
  double first = std::numeric_limits<double>::infinity();
  for (std::size_t r = 0; r < counts.size(); ++r) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(r * most);
    job.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(counts[r]));
    for (const TraceEvent& event : job.back()) first = std::min(first, event.begin);
  }
  for (auto& events : job) {
    for (TraceEvent& event : events) {
      event.begin -= first;
      event.end -= first;
    }
  }
  return job;
}

double seconds_of(const JobTrace& trace) {
  double first = std::numeric_limits<double>::infinity(), last = 0;
  for (const auto& events : trace) {
    for (const TraceEvent& event : events) {
      first = std::min(first, event.begin);
      last = std::max(last, event.end);
    }
  }
  return std::max(0.0, last - first);
}

std::optional<double> measured_bubble(const JobTrace& trace, std::int64_t step) {
  double first = std::numeric_limits<double>::infinity(), last = 0, busy = 0;
  int ranks = 0;
  for (const auto& events : trace) {
    bool has_any = false;
    for (const TraceEvent& event : events) {
      if (event.lane != Lane::kPipeline || event.step != step) continue;
      has_any = true;
      first = std::min(first, event.begin);
      last = std::max(last, event.end);
      busy += event.end - event.begin;
    }
    if (has_any) ++ranks;
  }
  if (!(busy > 0)) return std::nullopt;
  return ((last - first) * ranks - busy) / busy;
}

TraceSummary summarize(std::span<const TraceEvent> events, double seconds) {
  TraceSummary summary{.seconds = seconds};
  std::vector<std::pair<double, double>> computing;
  for (const TraceEvent& event : events) {
    if (event.lane == Lane::kPipeline) continue;
    const double length = event.end - event.begin;
    if (event.lane == Lane::kCompute) computing.emplace_back(event.begin, event.end);
    double& sum = event.lane == Lane::kCompute ? summary.compute
                  : event.lane == Lane::kData  ? summary.data_wait
                                               : summary.communication;
    sum += length;
  }
  std::ranges::sort(computing);
  for (const TraceEvent& event : events) {
    if (event.lane != Lane::kCommunication) continue;
    double exposed = event.end - event.begin;
    for (auto c = std::ranges::lower_bound(computing, event.begin, {},
                                           &std::pair<double, double>::second);
         c != computing.end() && c->first < event.end; ++c) {
      exposed -= std::max(0.0, std::min(c->second, event.end) - std::max(c->first, event.begin));
    }
    summary.exposed += std::max(0.0, exposed);
  }
  return summary;
}

}  // namespace concord
