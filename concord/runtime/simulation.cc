#include "concord/runtime/simulation.h"

#include <algorithm>
#include <deque>
#include <map>
#include <queue>
#include <tuple>

#include "concord/base/error.h"
#include "concord/comm/operation.h"

namespace concord {
namespace {

class Clock {
 public:
  Clock(std::span<const SimulatedRank> ranks, const OperationSeconds& seconds, bool traced)
      : given_(ranks),
        seconds_(seconds),
        states_(ranks.size()),
        begin_(ranks[0].timeline->begin),
        end_(ranks[0].timeline->end),
        ends_(static_cast<std::size_t>(end_) + 1) {
    if (traced) result_.trace.resize(ranks.size());
    result_.ranks.resize(ranks.size());
    for (const SimulatedRank& rank : ranks) {
      Host& host = hosts_[rank.host];
      host.ranks += rank.ranks;
    }
  }

  Simulation run() {
    for (int r = 0; r < std::ssize(given_); ++r) {
      states_[at(r)].pending.resize(given_[at(r)].timeline->operations.size());
      queue_.emplace(0.0, r);
    }
    while (!queue_.empty()) {
      const int r = queue_.top().second;
      queue_.pop();
      set_computing(r, false);
      go_on(r);
    }
    for (int r = 0; r < std::ssize(given_); ++r) {
      CONCORD_CHECK(states_[at(r)].run == given_[at(r)].timeline->runs, "a rank waits forever");
    }
    const double steps = end_ - begin_;
    result_.step_seconds = (ends_[at(end_)] - ends_[at(begin_)]) / steps;
    for (SimulatedTime& time : result_.ranks) time = {time.compute / steps, time.waited / steps};
    const double before = ends_[at(end_ - 1)];
    for (auto& of_rank : result_.trace) {
      for (auto& event : of_rank) {
        event.begin -= before;
        event.end -= before;
      }
    }
    return std::move(result_);
  }

 private:
  struct Pending {
    std::size_t arrived = 0;
    bool is_done = false;
    double begin = 0, end = 0;
    std::vector<int> waiting;
  };
  struct Group {
    std::vector<int> members;
    double free_at = 0;
    std::deque<Pending> operations;   // by their order, of what is no message
    std::map<int, std::size_t> next;  // by member
    std::map<std::tuple<int, std::int64_t, std::int64_t>, Pending> messages;
  };
  struct State {
    double now = 0, debt = 0;
    std::size_t event = 0;
    int run = 0, step = 0;  // that it is at
    bool computes = false;
    double half_begin = -1, half_end = 0;  // of what is computed of a half
    std::vector<Pending*> pending;         // by operation of the timeline
  };
  struct Host {
    std::int64_t ranks = 0, computing = 0;
  };

  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  static bool is_message(const TimelineOperation& operation) {
    return operation.kind == comm::Operation::Kind::kSend ||
           operation.kind == comm::Operation::Kind::kReceive;
  }

  void set_computing(int r, bool computes) {
    if (states_[at(r)].computes == computes) return;
    states_[at(r)].computes = computes;
    hosts_[given_[at(r)].host].computing += (computes ? 1 : -1) * given_[at(r)].ranks;
  }

  // Until time passes.
  void go_on(int r) {
    State& state = states_[at(r)];
    const Timeline& timeline = *given_[at(r)].timeline;
    while (state.run < timeline.runs) {
      if (state.event == timeline.events.size()) {
        if (timeline.runs > 1) end_step(state);
        ++state.run;
        state.event = 0;
        continue;
      }
      const TimelineEvent& event = timeline.events[state.event];
      switch (event.kind) {
        case TimelineEvent::Kind::kCompute:
          ++state.event;
          compute(r, event);
          return;
        case TimelineEvent::Kind::kStart:
          ++state.event;
          start(r, event.operation);
          break;
        case TimelineEvent::Kind::kAwait:
          if (!await(r, event.operation)) return;
          ++state.event;
          break;
        case TimelineEvent::Kind::kBegin:
          ++state.event;
          state.half_begin = -1;
          break;
        case TimelineEvent::Kind::kEnd:
          ++state.event;
          if (state.half_begin < 0) break;
          trace(r, Lane::kPipeline, event.name, event.about, state.half_begin, state.half_end);
          break;
        case TimelineEvent::Kind::kStepEnd:
          ++state.event;
          end_step(state);
          break;
      }
    }
  }

  void end_step(State& state) {
    if (state.step <= end_) {
      double& end = ends_[at(state.step)];
      end = std::max(end, state.now);
    }
    ++state.step;
  }
  bool is_timed(const State& state) const { return state.step > begin_ && state.step <= end_; }

  // The more of a host's ranks compute at once, the nearer is the cost to that of all.
  void compute(int r, const TimelineEvent& event) {
    State& state = states_[at(r)];
    const Host& host = hosts_.at(given_[at(r)].host);
    const std::int64_t others = host.computing + given_[at(r)].ranks - 1;  // who compute, too
    const double share =
        others == 0 ? 0 : static_cast<double>(others) / static_cast<double>(host.ranks - 1);
    const double seconds = event.cost.alone + share * (event.cost.crowded - event.cost.alone);
    const double begin = state.now;
    state.now += seconds + state.debt;
    state.debt = 0;
    if (state.half_begin < 0) state.half_begin = begin;
    state.half_end = state.now;
    if (is_timed(state)) result_.ranks[at(r)].compute += seconds;
    trace(r, Lane::kCompute, event.name, event.about, begin, state.now);
    set_computing(r, true);
    queue_.emplace(state.now, r);
  }

  void trace(int r, Lane lane, comm::Label name, comm::Label about, double begin, double end) {
    if (result_.trace.empty() || states_[at(r)].step != end_) return;
    result_.trace[at(r)].push_back(
        {.name = name, .about = about, .lane = lane, .step = end_, .begin = begin, .end = end});
  }

  void start(int r, std::size_t id) {
    State& state = states_[at(r)];
    const TimelineOperation& operation = given_[at(r)].timeline->operations[id];
    Group& group = group_of(r, operation);
    if (is_message(operation)) {
      Pending& pending = group.messages[{state.run, operation.microbatch, operation.number}];
      state.pending[id] = &pending;
      if (operation.is_send) finish(r, group, pending, operation);  // it was asked for before
      return;
    }
    const std::size_t order = group.next[r]++;
    if (order == group.operations.size()) group.operations.emplace_back();
    Pending& pending = group.operations[order];
    state.pending[id] = &pending;
    if (++pending.arrived == group.members.size()) finish(r, group, pending, operation);
  }

  // At the time of rank r, who came last.
  void finish(int r, Group& group, Pending& pending, const TimelineOperation& operation) {
    const double seconds = seconds_(operation, given_[at(r)]);
    pending.begin = std::max(states_[at(r)].now, group.free_at);
    pending.end = group.free_at = pending.begin + seconds;
    pending.is_done = true;
    for (const int member : group.members) {
      if (!result_.trace.empty()) {
        std::string name(name_of(operation.kind));
        if (!operation.group.empty()) name += fmt::format(" ({})", operation.group);
        trace(member, Lane::kCommunication, std::string_view(name), operation.label, pending.begin,
              pending.end);
      }
      const bool computes = member == r ? !awaits_next(r) : states_[at(member)].computes;
      if (computes && !given_[at(member)].has_spare_core) states_[at(member)].debt += seconds;
    }
    for (const int waiting : pending.waiting) {
      State& state = states_[at(waiting)];
      if (is_timed(state)) result_.ranks[at(waiting)].waited += pending.end - state.now;
      state.now = std::max(state.now, pending.end);
      queue_.emplace(state.now, waiting);
    }
    pending.waiting.clear();
  }

  bool awaits_next(int r) const {
    const State& state = states_[at(r)];
    const std::vector<TimelineEvent>& events = given_[at(r)].timeline->events;
    return state.event < events.size() && events[state.event].kind == TimelineEvent::Kind::kAwait;
  }

  // False where the rank does not go on before others do.
  bool await(int r, std::size_t id) {
    State& state = states_[at(r)];
    Pending& pending = *state.pending[id];
    if (!pending.is_done) {
      pending.waiting.push_back(r);
      return false;
    }
    if (pending.end <= state.now) return true;
    if (is_timed(state)) result_.ranks[at(r)].waited += pending.end - state.now;
    state.now = pending.end;
    queue_.emplace(state.now, r);
    return false;
  }

  // Those who are folded into one are one member.
  Group& group_of(int r, const TimelineOperation& operation) {
    const SimulatedRank& rank = given_[at(r)];
    const bool message = is_message(operation);
    const bool of_all = operation.group.empty();
    const bool varies_column = of_all || operation.group == "data";
    const bool varies_row = of_all || message || operation.group == "pipe";
    const bool varies_slice = of_all || operation.group == "tensor";
    const auto key = std::tuple(operation.group, varies_column ? -1 : rank.column,
                                varies_row ? -1 : rank.row, varies_slice ? -1 : rank.slice,
                                message ? operation.from : 0, message ? operation.to : 0);
    const auto [found, is_new] = groups_.try_emplace(key);
    Group& group = found->second;
    if (!is_new) return group;
    for (int other = 0; other < std::ssize(given_); ++other) {
      const SimulatedRank& one = given_[at(other)];
      const bool is_member = (varies_column || one.column == rank.column) &&
                             (varies_row || one.row == rank.row) &&
                             (varies_slice || one.slice == rank.slice) &&
                             (!message || one.row == operation.from || one.row == operation.to);
      if (is_member) group.members.push_back(other);
    }
    return group;
  }

  std::span<const SimulatedRank> given_;
  const OperationSeconds& seconds_;
  std::vector<State> states_;
  std::map<int, Host> hosts_;
  std::map<std::tuple<std::string, int, int, int, int, int>, Group> groups_;
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>>
      queue_;
  int begin_, end_;           // steps that are timed: Timeline
  std::vector<double> ends_;  // of steps, on the last rank
  Simulation result_;
};

}  // namespace

Simulation simulate(std::span<const SimulatedRank> ranks, const OperationSeconds& seconds,
                    bool traced) {
  return Clock(ranks, seconds, traced).run();
}

}  // namespace concord
