#include "concord/train/simulator.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <tuple>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/comm/collective_costs.h"
#include "concord/comm/link_costs.h"
#include "concord/comm/planned.h"
#include "concord/runtime/op_costs.h"
#include "concord/runtime/rehearsals.h"
#include "concord/tensor/buffer.h"
#include "concord/train/codecs.h"
#include "concord/train/job.h"
#include "concord/train/pipeline.h"
#include "concord/train/step_benchmark.h"

namespace concord::train {
namespace {

using Kind = comm::Operation::Kind;

std::size_t at(int i) { return static_cast<std::size_t>(i); }

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

class Simulator {
 public:
  Simulator(const Config& config, const SimulationOptions& options)
      : config_(config), options_(options), local_(options.local) {
    if (local_ == nullptr) local_ = &alone_;
    if (options.cluster != nullptr) {
      cluster_ = *options.cluster;
    } else {
      cluster_.kinds.push_back({.name = "this machine", .ranks = options.ranks});
    }
    places_ = parallel::place_ranks(cluster_, options.ranks);
  }

  SimulatedJob run() {
    const double start = now_seconds();
    compile();
    const double compiled = now_seconds();
    measure_ops();
    write_timelines(0);
    measure_collectives();
    const double measured = now_seconds();
    SimulatedJob result{.ranks = options_.ranks,
                        .batch = job_->engine->batch(),
                        .measured_step_seconds = real_seconds_.empty() ? 0 : median(real_seconds_),
                        .measured_ops = measured_ops_,
                        .measuring_seconds = measured - compiled};
    if (!local_->is_first()) return result;
    std::vector<Simulated> runs;
    for (int run = 0; run < (is_rehearsed() ? options_.runs : 1); ++run) {
      write_timelines(run);
      runs.push_back({simulate(
                          ranks_,
                          [this](const TimelineOperation& operation, const SimulatedRank& rank) {
                            return seconds_of(operation, rank.rank);
                          },
                          options_.traced),
                      ranks_});
    }
    std::vector<double> ratios;
    for (std::size_t run = 0; run < std::min(runs.size(), real_seconds_.size()); ++run) {
      ratios.push_back(runs[run].simulation.step_seconds / real_seconds_[run]);
    }
    if (!ratios.empty()) result.error = median(ratios) - 1;
    std::ranges::sort(runs, {}, [](const Simulated& one) { return one.simulation.step_seconds; });
    Simulated& middle = runs[runs.size() / 2];
    result.step_seconds = middle.simulation.step_seconds;
    result.trace = std::move(middle.simulation.trace);
    for (std::size_t r = 0; r < middle.ranks.size(); ++r) {
      result.of_ranks.push_back({.first = middle.ranks[r].rank,
                                 .ranks = middle.ranks[r].ranks,
                                 .compute_seconds = middle.simulation.ranks[r].compute,
                                 .waited_seconds = middle.simulation.ranks[r].waited});
    }
    result.simulating_seconds = now_seconds() - start - result.measuring_seconds;
    return result;
  }

 private:
  struct Simulated {
    Simulation simulation;
    std::vector<SimulatedRank> ranks;
  };

  // Whether the ranks of the job are those who measure. Then each run is simulated by what each
  // rank's own steps have taken in it, and the median run counts: where a rank is held up, others
  // wait for it, which the mean of its times would not show.
  bool is_rehearsed() const {
    return options_.cluster == nullptr && options_.ranks == local_->size();
  }
  int own_row() const { return row_of(local_->rank()); }
  int row_of(int rank) const {
    const Mesh& mesh = this->mesh();
    const int tensor = mesh.extent(parallel::kTensorAxis);
    return rank % (mesh.extent(parallel::kPipeAxis) * tensor) / tensor;
  }

  // One engine for each place along the pipe: ranks along data have the same programs, and those
  // along tensor are taken to be like the first.
  void compile() {
    // The first of this machine makes the kernel choices, which the others find.
    if (!local_->is_first()) local_->barrier();
    planned_.push_back(plan(0));
    job_ =
        std::make_unique<Job>(open_job(config_, {}, planned_.back().get(), /*only_planned=*/true));
    if (local_->is_first()) local_->barrier();
    const Mesh& mesh = this->mesh();
    const int tensor = mesh.extent(parallel::kTensorAxis);
    engines_.push_back(job_->engine.get());
    for (int row = 1; row < mesh.extent(parallel::kPipeAxis); ++row) {
      planned_.push_back(plan(row * tensor));
      made_.push_back(plan_engine(*job_, config_, *planned_.back()));
      engines_.push_back(made_.back().get());
    }
  }

  std::unique_ptr<comm::Planned> plan(int rank) const {
    return std::make_unique<comm::Planned>(rank, options_.ranks, shares_memory(config_.parallel));
  }

  const Mesh& mesh() const { return job_->engine->plan().mesh; }

  // Each by itself, one after the other, and then all at once.
  template <typename Timed>
  void in_turns(Timed time_alone, Timed time_crowded) {
    for (int turn = 0; turn < local_->size(); ++turn) {
      local_->barrier();
      if (turn == local_->rank()) time_alone();
    }
    local_->barrier();
    time_crowded();
    local_->barrier();
  }

  // Each rank its own program where all are here; else, of the programs of all places, those that
  // have a kind of op which no other before has.
  void measure_ops() {
    const bool is_measured = std::ranges::any_of(
        cluster_.kinds, [](const parallel::HostKind& kind) { return !kind.processor; });
    if (!is_measured) return;
    std::optional<Job> real;
    std::unique_ptr<data::Loader> real_loader;
    if (options_.checked) {
      real.emplace(open_job(config_, job_->engine->policy().choices, options_.local));
      real_loader = real->train_loader(0, 1);
    }
    const Samples real_samples = real ? samples_of(real_loader->next()) : Samples{};
    const std::unique_ptr<data::Loader> loader = job_->train_loader(0, 1);
    const Samples samples = samples_of(loader->next());
    struct Measured {
      Engine* engine;
      std::vector<Executor::Rehearsal> alone = {}, crowded = {};
    };
    std::vector<Measured> measured;
    std::set<std::string> known;
    for (Engine* const engine : engines_) {
      const std::size_t before = known.size();
      known.merge(kinds_of(engine->training_program()));
      if (is_rehearsed() ? engine != engines_[at(own_row())] : known.size() == before) continue;
      engine->allocate();
      engine->join_ranks();
      measured.push_back({engine});
    }
    measured_ops_ = known.size();
    for (int run = -kWarmUps; run < options_.runs; ++run) {
      if (real) {
        local_->barrier();
        const double seconds = seconds_among_others(*real->engine, real_samples);
        if (run >= 0) real_seconds_.push_back(seconds);
      }
      for (Measured& one : measured) {
        const auto time = [&](std::vector<Executor::Rehearsal>& rehearsals) {
          Executor::Rehearsal rehearsal = one.engine->rehearse(samples);
          if (run >= 0) rehearsals.push_back(std::move(rehearsal));
        };
        const std::function<void()> alone = [&] { time(one.alone); };
        const std::function<void()> crowded = [&] { time(one.crowded); };
        in_turns(alone, crowded);
      }
    }
    if (is_rehearsed()) {
      gather(measured.at(0).alone, measured.at(0).crowded);
    } else {
      for (const Measured& one : measured) {
        costs_.add(one.engine->training_program(), one.alone, one.crowded);
      }
    }
    for (const bool copies : {false, true}) measure_memory(copies);
  }

  // Of a step: the second, or, where steps overlap, the mean of some after as many.
  double seconds_among_others(Engine& engine, const Samples& samples) const {
    const int some = engine.overlaps_steps() ? 2 * mesh().extent(parallel::kPipeAxis) : 1;
    double seconds = 0;
    for (int step = 0; step < 2 * some; ++step) {
      const double one = seconds_of_step(engine, samples, step);
      if (step >= some) seconds += one;
    }
    engine.drain();
    return seconds / some;
  }

  // What each rank has rehearsed, on all of them.
  void gather(const std::vector<Executor::Rehearsal>& alone,
              const std::vector<Executor::Rehearsal>& crowded) {
    const auto all_alone = gather_rehearsals(*local_, alone);
    const auto all_crowded = gather_rehearsals(*local_, crowded);
    for (int r = 0; r < local_->size(); ++r) {
      const Program& program = engines_[at(row_of(r))]->training_program();
      auto& of_rank = rehearsed_.emplace_back();
      for (int run = 0; run < options_.runs; ++run) {
        of_rank.emplace_back(program, all_alone[at(r)][at(run)], all_crowded[at(r)][at(run)]);
      }
    }
  }

  // Seconds of adding, or copying, a byte.
  void measure_memory(bool copies) {
    constexpr std::size_t kBytes = std::size_t{8} << 20;
    Buffer a(kBytes), b(kBytes);
    const auto time = [&] {
      std::vector<double> seconds;
      for (int i = 0; i < 5; ++i) {
        const double start = now_seconds();
        if (copies) {
          std::copy_n(b.data(), kBytes, a.data());
        } else {
          comm::add_floats(a.data(), b.data(), kBytes);
        }
        seconds.push_back((now_seconds() - start) / kBytes);
      }
      return median(seconds);
    };
    OpCost& cost = copies ? of_copied_byte_ : of_added_byte_;
    const std::function<void()> alone = [&] { cost.alone = time(); };
    const std::function<void()> crowded = [&] { cost.crowded = time(); };
    in_turns(alone, crowded);
  }

  // Of what a rank has rehearsed in a run.
  TimelineCosts costs_of_rank(int rank, int run) const {
    const RehearsedCosts& costs = rehearsed_[at(rank)][at(run)];
    TimelineCosts result = costs_of(cluster_.kinds[0]);
    result.of_step = [&costs](const Program&, const ProgramStep& step, std::int64_t microbatch) {
      return costs.of(step, microbatch);
    };
    result.of_bucket = [&costs](std::size_t bucket, std::int64_t m) {
      return costs.of_bucket(bucket, m);
    };
    result.of_inputs = [&costs](const Program&, std::int64_t microbatch) {
      return costs.of_inputs(microbatch);
    };
    return result;
  }

  // By the processor of hosts of a kind.
  TimelineCosts costs_of(const parallel::HostKind& kind) const {
    const auto of_bytes = [this, &kind](const OpCost& of_byte, std::size_t bytes) {
      const auto count = static_cast<double>(bytes);
      if (!kind.processor) {
        return OpCost{of_byte.alone * count / kind.speed, of_byte.crowded * count / kind.speed};
      }
      const double seconds = 3 * count / kind.processor->memory_bytes_per_second;
      return OpCost{seconds, seconds};
    };
    return {.of_step =
                [this, &kind](const Program& program, const ProgramStep& step, std::int64_t) {
                  if (!kind.processor) {
                    const OpCost& cost = costs_.of(program, step);
                    return OpCost{cost.alone / kind.speed, cost.crowded / kind.speed};
                  }
                  const parallel::Processor& with = *kind.processor;
                  const double seconds =
                      std::max(step.flops / with.flops_per_second,
                               static_cast<double>(step.bytes) / with.memory_bytes_per_second);
                  return OpCost{seconds, seconds};
                },
            .of_inputs = [](const Program&, std::int64_t) { return OpCost{}; },
            .of_addition =
                [this, of_bytes](std::size_t bytes) { return of_bytes(of_added_byte_, bytes); },
            .of_copy = [this,
                        of_bytes](std::size_t bytes) { return of_bytes(of_copied_byte_, bytes); }};
  }

  void write_timelines(int run) {
    timelines_.clear();
    ranks_.clear();
    is_rehearsed() ? write_all(run) : write_folded();
  }

  void write_all(int run) {
    const Mesh& mesh = this->mesh();
    const int tensor = mesh.extent(parallel::kTensorAxis);
    const int line = mesh.extent(parallel::kPipeAxis) * tensor;
    const std::vector<std::int64_t> leaves = job_->engine->leaves_of_ranks();
    for (int r = 0; r < options_.ranks; ++r) {
      const int column = r / line;
      timelines_.push_back(timeline(row_of(r), costs_of_rank(r, run), column, leaves[at(column)]));
      ranks_.push_back({.rank = r,
                        .column = column,
                        .row = row_of(r),
                        .slice = r % tensor,
                        .has_spare_core = has_spare_core(cluster_.kinds[0])});
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) ranks_[r].timeline = &timelines_[r];
  }

  // Ranks along data that have equally many leaves, on hosts that are alike, are folded into one.
  void write_folded() {
    const Mesh& mesh = this->mesh();
    const int tensor = mesh.extent(parallel::kTensorAxis);
    const int rows = mesh.extent(parallel::kPipeAxis);
    const int line = rows * tensor;  // ranks of a place along data
    const std::vector<std::int64_t> leaves = job_->engine->leaves_of_ranks();
    struct Column {
      int first = 0;
      std::int64_t ranks = 0;
    };
    std::map<std::vector<std::int64_t>, Column> columns;
    for (int d = 0; d < mesh.extent(parallel::kDataAxis); ++d) {
      std::vector<std::int64_t> key = {leaves[at(d)]};
      for (int r = d * line; r < (d + 1) * line; ++r) {
        key.push_back(places_[at(r)].kind);
        // Which of the column's ranks are on one host.
        key.push_back(places_[at(r)].host - places_[at(d * line)].host);
      }
      Column& column = columns.try_emplace(key, Column{.first = d}).first->second;
      ++column.ranks;
    }
    int number = 0;
    std::map<std::tuple<int, int, std::int64_t>, std::size_t> known;
    std::vector<std::size_t> timeline_of_rank;
    for (const auto& [key, column] : columns) {
      for (int row = 0; row < rows; ++row) {
        const int rank = column.first * line + row * tensor;
        const int kind = slowest_kind(rank, tensor);
        const parallel::HostKind& host = cluster_.kinds[at(kind)];
        const auto [found, is_new] = known.try_emplace({row, kind, key[0]}, timelines_.size());
        if (is_new) timelines_.push_back(timeline(row, costs_of(host), column.first, key[0]));
        timeline_of_rank.push_back(found->second);
        ranks_.push_back({.rank = rank,
                          .ranks = column.ranks * tensor,
                          .column = number,
                          .row = row,
                          .host = kind,
                          .has_spare_core = has_spare_core(host)});
      }
      ++number;
    }
    for (std::size_t r = 0; r < ranks_.size(); ++r) {
      ranks_[r].timeline = &timelines_[timeline_of_rank[r]];
    }
  }

  int slowest_kind(int rank, int tensor) const {
    const auto speed = [&](int r) { return cluster_.kinds[at(places_[at(r)].kind)].speed; };
    int slowest = rank;
    for (int t = 1; t < tensor; ++t) {
      if (speed(rank + t) < speed(slowest)) slowest = rank + t;
    }
    return places_[at(slowest)].kind;
  }

  // What a GPU's ranks tell each other takes nothing from what they compute.
  bool has_spare_core(const parallel::HostKind& host) const {
    return host.processor || host.ranks * compute_threads() < available_cores();
  }

  Timeline timeline(int row, const TimelineCosts& costs, int data_rank, std::int64_t leaves) {
    Engine& engine = *engines_[at(row)];
    const std::int64_t leaf = (engine.batch() + engine.leaves() - 1) / engine.leaves();
    const std::int64_t size = engine.microbatch_size();
    RankStep step{.data_ranks = mesh().extent(parallel::kDataAxis),
                  .pipe_ranks = mesh().extent(parallel::kPipeAxis),
                  .place_along_pipe = row,
                  .has_common_memory = engine.plan().in_common};
    const Program& program = engine.training_program();
    for (std::int64_t l = 0; l < leaves; ++l) {
      for (std::int64_t begin = 0; begin < leaf; begin += size) {
        const std::int64_t count = std::min(size, leaf - begin);
        step.microbatches.push_back(
            {.program = &program,
             .place = {.first_of_leaf = begin == 0, .last_of_leaf = begin + count == leaf},
             .share = static_cast<double>(count) / static_cast<double>(size)});
      }
    }
    const std::vector<std::int64_t> all = engine.leaves_of_ranks();
    for (int d = 0; d < data_rank; ++d) step.place.first_leaf += all[at(d)];
    step.place.rounds = *std::ranges::max_element(all);
    PipelineOrder order;
    if (step.pipe_ranks > 1) {
      order = order_of_steps(engine.plan(), row, std::ssize(step.microbatches));
      step.order = &order;
    } else if (!step.microbatches.empty()) {
      step.microbatches.back().place.last_of_step = true;
    }
    if (!engine.overlaps_steps()) return timeline_of(step, costs);
    step.steps_in_flight = engine.most_steps_in_flight(row);
    step.most_in_flight = engine.most_steps_in_flight(0);
    step.kept_bytes = engine.states().kept_bytes();
    return timeline_of_stream(step, costs);
  }

  // Which ranks an operation of a rank is between.
  std::vector<int> members_of(const TimelineOperation& operation, int rank) const {
    std::vector<int> members;
    if (operation.group.empty()) {
      for (int r = 0; r < options_.ranks; ++r) members.push_back(r);
    } else if (operation.kind == Kind::kSend || operation.kind == Kind::kReceive) {
      const std::vector<int> line = mesh().ranks_along(rank, parallel::kPipeAxis);
      members = {line[at(operation.from)], line[at(operation.to)]};
    } else {
      members = mesh().ranks_along(rank, operation.group);
    }
    return members;
  }

  struct Reach {
    int ranks = 0, hosts = 0;
    comm::LinkedRanks links;
  };
  // Operations of one group are alike.
  const Reach& reach_of(const TimelineOperation& operation, int rank) {
    const bool message = operation.kind == Kind::kSend || operation.kind == Kind::kReceive;
    const auto [found, is_new] = reaches_.try_emplace(
        {operation.group, rank, message ? operation.from : -1, message ? operation.to : -1});
    Reach& reach = found->second;
    if (!is_new) return reach;
    const std::vector<int> members = members_of(operation, rank);
    std::set<int> hosts;
    for (const int member : members) hosts.insert(places_[at(member)].host);
    reach.ranks = static_cast<int>(std::ssize(members));
    reach.hosts = static_cast<int>(std::ssize(hosts));
    if (reach.hosts == 1) {
      if (!cluster_.inside) return reach;
      reach.links = {.ranks = reach.ranks,
                     .bytes_per_second = cluster_.inside->bytes_per_second,
                     .latency_seconds = cluster_.inside->latency_seconds};
      return reach;
    }
    reach.links = {.ranks = reach.ranks,
                   .hosts = reach.ranks % reach.hosts == 0 ? reach.hosts : reach.ranks};
    const parallel::Link* slowest = nullptr;
    for (std::size_t m = 1; m < members.size(); ++m) {
      const auto &one = places_[at(members[m - 1])], &other = places_[at(members[m])];
      if (one.host == other.host) continue;
      const parallel::Link& link = parallel::link_between(cluster_, one, other);
      if (slowest == nullptr || link.bytes_per_second < slowest->bytes_per_second) slowest = &link;
    }
    // Groups like this one, of the other ranks of its hosts, use the link at the same time.
    const int each = reach.ranks / reach.links.hosts;
    const int of_host = cluster_.kinds[at(places_[at(members[0])].kind)].ranks;
    const int groups = message || operation.group.empty() ? 1 : std::max(1, of_host / each);
    reach.links.bytes_per_second = slowest->bytes_per_second / groups;
    reach.links.latency_seconds = slowest->latency_seconds;
    if (each > 1 && cluster_.inside) {
      reach.links.inside_bytes_per_second = cluster_.inside->bytes_per_second;
      reach.links.inside_latency_seconds = cluster_.inside->latency_seconds;
    } else if (each > 1) {
      inside_of_several_hosts(reach.links, each);
    }
    return reach;
  }

  // As it was measured here.
  void inside_of_several_hosts(comm::LinkedRanks& links, int each) const {
    const bool is_known = collectives_.knows(Kind::kReduceScatter, each);
    if (!is_known) parallel::link_between(cluster_, places_[0], places_[0]);  // says what is needed
    links.inside_latency_seconds = collectives_.of(Kind::kBarrier, each, 0);
    links.inside_bytes_per_second = kInsideBytes /
                                    collectives_.of(Kind::kReduceScatter, each, kInsideBytes) *
                                    (each - 1) / each;
  }

  double seconds_of(const TimelineOperation& operation, int rank) {
    const Reach& reach = reach_of(operation, rank);
    if (reach.ranks == 1) return 0;
    if (reach.hosts > 1 || cluster_.inside) {
      return comm::seconds_over_links(reach.links, operation.kind, operation.bytes);
    }
    if (!collectives_.knows(operation.kind, reach.ranks)) {
      fail(
          "a host has {} ranks together, more than this machine can measure with {}: give the "
          "cluster file [inside], with bytes_per_second and latency_seconds",
          reach.ranks, local_->size());
    }
    return collectives_.of(operation.kind, reach.ranks, operation.bytes);
  }

  // Those of ranks of the first host, where there are as many of them here.
  void measure_collectives() {
    if (local_->size() == 1 || cluster_.inside) return;
    struct Wanted {
      std::vector<int> colors;
      std::map<Kind, std::size_t> most_bytes;
    };
    std::map<std::string, Wanted> wanted;
    for (const SimulatedRank& rank : ranks_) {
      for (const TimelineOperation& operation : rank.timeline->operations) {
        const bool message = operation.kind == Kind::kSend || operation.kind == Kind::kReceive;
        const std::string name = message ? "pairs" : operation.group;
        Wanted& group = wanted[name];
        if (group.colors.empty()) group.colors = local_colors(name);
        std::size_t& most = group.most_bytes[comm::measured_kind(operation.kind)];
        most = std::max(most, operation.bytes);
      }
    }
    for (auto& [name, group] : wanted) {
      // Of which groups of several hosts make theirs.
      group.most_bytes.try_emplace(Kind::kBarrier, 0);
      group.most_bytes.try_emplace(Kind::kReduceScatter, kInsideBytes);
      comm::Communicator& ranks = local_->split("simulated " + name, group.colors);
      if (ranks.size() == 1) continue;
      for (const auto& [kind, most] : group.most_bytes) collectives_.measure(ranks, kind, most);
    }
  }

  std::vector<int> local_colors(const std::string& name) const {
    std::vector<int> colors;
    for (int r = 0; r < local_->size(); ++r) {
      if (name.empty()) {
        colors.push_back(0);
      } else {
        colors.push_back(name == "pairs" ? r / 2 : mesh().first_along(r, name));
      }
    }
    return colors;
  }

  static constexpr int kWarmUps = 2;
  static constexpr std::size_t kInsideBytes = 1 << 20;

  const Config& config_;
  const SimulationOptions& options_;
  comm::Alone alone_;
  comm::Communicator* local_;
  parallel::Cluster cluster_;
  std::vector<parallel::RankHost> places_;
  std::vector<std::unique_ptr<comm::Planned>> planned_;
  std::unique_ptr<Job> job_;
  std::vector<std::unique_ptr<Engine>> made_;
  std::vector<Engine*> engines_;  // by place along "pipe"
  OpCosts costs_;
  std::size_t measured_ops_ = 0;                        // kinds
  std::vector<std::vector<RehearsedCosts>> rehearsed_;  // by rank and run
  OpCost of_added_byte_, of_copied_byte_;
  std::vector<double> real_seconds_;  // of a step, by run
  comm::CollectiveCosts collectives_;
  std::vector<Timeline> timelines_;
  std::vector<SimulatedRank> ranks_;
  std::map<std::tuple<std::string, int, int, int>, Reach> reaches_;
};

}  // namespace

int measuring_ranks(const parallel::Cluster* cluster, int ranks, int threads) {
  const int room = std::max(1, available_cores() / std::max(1, threads));
  if (cluster == nullptr) return std::min(ranks, room);
  int most = 1;
  for (const parallel::HostKind& kind : cluster->kinds) {
    if (!kind.processor) most = std::max(most, kind.ranks);
  }
  return std::min({most, ranks, room});
}

SimulatedJob simulate_job(const Config& config, const SimulationOptions& options) {
  if (has_codecs(config.parallel)) {
    fail(
        "simulate foresees no compression: expected parallel.codec = \"none\", and no "
        "parallel.codecs");
  }
  return Simulator(config, options).run();
}

}  // namespace concord::train
