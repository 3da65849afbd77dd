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

// The first step begins with nothing under way; the second is one among others.
constexpr int kSteps = 2;

class Clock {
 public:
  Clock(std::span<const SimulatedRank> ranks, const OperationSeconds& seconds, bool traced)
      : given_(ranks), seconds_(seconds), states_(ranks.size()) {
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
    double end = 0;
    for (const State& state : states_) {
      CONCORD_CHECK(state.step == kSteps, "a rank waits forever");
      end = std::max(end, state.now);
    }
    result_.step_seconds = end - first_end_;
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
    int step = 0;
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
    while (state.step < kSteps) {
      if (state.event == timeline.events.size()) {
        ++state.step;
        state.event = 0;
        if (state.step == kSteps - 1) first_end_ = std::max(first_end_, state.now);
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
          if (state.half_begin < 0 || state.step < kSteps - 1) break;
          trace(r, Lane::kPipeline, event.name, event.about, state.half_begin, state.half_end);
          break;
      }
    }
  }

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
    if (state.step == kSteps - 1) {
      result_.ranks[at(r)].compute += seconds;
      trace(r, Lane::kCompute, event.name, event.about, begin, state.now);
    }
    set_computing(r, true);
    queue_.emplace(state.now, r);
  }

  void trace(int r, Lane lane, comm::Label name, comm::Label about, double begin, double end) {
    if (result_.trace.empty()) return;
    result_.trace[at(r)].push_back({.name = name,
                                    .about = about,
                                    .lane = lane,
                                    .step = kSteps - 1,
                                    .begin = begin - first_end_,
                                    .end = end - first_end_});
  }

  void start(int r, std::size_t id) {
    State& state = states_[at(r)];
    const TimelineOperation& operation = given_[at(r)].timeline->operations[id];
    Group& group = group_of(r, operation);
    if (is_message(operation)) {
      Pending& pending = group.messages[{state.step, operation.microbatch, operation.number}];
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
      if (states_[at(member)].step == kSteps - 1) {
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
      if (state.step == kSteps - 1) result_.ranks[at(waiting)].waited += pending.end - state.now;
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
    if (state.step == kSteps - 1) result_.ranks[at(r)].waited += pending.end - state.now;
    state.now = pending.end;
    queue_.emplace(state.now, r);
    return false;
  }

  // Those along tensor are folded into one, as are all who do the same.
  Group& group_of(int r, const TimelineOperation& operation) {
    const SimulatedRank& rank = given_[at(r)];
    const bool message = is_message(operation);
    const bool of_row = operation.group == "data";
    const bool of_column = message || operation.group == "pipe";
    const bool of_all = operation.group.empty();
    const auto key = std::tuple(operation.group,
                                of_all   ? 0
                                : of_row ? rank.row
                                         : rank.column,
                                of_all || of_row || of_column ? -1 : rank.row,
                                message ? operation.from : 0, message ? operation.to : 0);
    const auto [found, is_new] = groups_.try_emplace(key);
    Group& group = found->second;
    if (!is_new) return group;
    for (int other = 0; other < std::ssize(given_); ++other) {
      const SimulatedRank& one = given_[at(other)];
      const bool is_member = of_all || (of_row && one.row == rank.row) ||
                             (of_column && one.column == rank.column &&
                              (!message || one.row == operation.from || one.row == operation.to)) ||
                             other == r;
      if (is_member) group.members.push_back(other);
    }
    return group;
  }

  std::span<const SimulatedRank> given_;
  const OperationSeconds& seconds_;
  std::vector<State> states_;
  std::map<int, Host> hosts_;
  std::map<std::tuple<std::string, int, int, int, int>, Group> groups_;
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>>
      queue_;
  double first_end_ = 0;  // of the step before the last, on the last rank
  Simulation result_;
};

}  // namespace

Simulation simulate(std::span<const SimulatedRank> ranks, const OperationSeconds& seconds,
                    bool traced) {
  return Clock(ranks, seconds, traced).run();
}

}  // namespace concord
