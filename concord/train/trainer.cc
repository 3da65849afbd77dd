#include "concord/train/trainer.h"

#include <sys/resource.h>

#include <array>
#include <cmath>
#include <deque>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/kernels/cpu/peak.h"
#include "concord/parallel/compress.h"
#include "concord/tensor/relayout.h"
#include "concord/train/checkpoint.h"
#include "concord/train/inference.h"
#include "concord/train/job.h"
#include "concord/train/local_sync.h"
#include "concord/train/run_folder.h"
#include "concord/train/saver.h"
#include "concord/train/speed.h"

namespace concord::train {
namespace {

void check_tensor(const Checkpoint& checkpoint, const formats::SafetensorsFile& file,
                  const std::string& name, const TensorType& type) {
  if (file.contains(name) && file.type(name) == type) return;
  fail("checkpoint {} does not fit the configuration: it has no tensor \"{}\" of type {}",
       checkpoint.directory.string(), name, to_string(type));
}

// Every state from the checkpoint, bit for bit.
void restore_state(Engine& engine, const Checkpoint& checkpoint) {
  for (const StateStore::Entry& entry : engine.states().entries()) {
    const auto [is_weight, name] = place_of(engine.states(), entry);
    const formats::SafetensorsFile& file = is_weight ? checkpoint.weights : checkpoint.optimizer;
    const bool is_found_anew =
        parallel::is_kept_factor(name) && file.contains(name) && file.type(name) != entry.type;
    if (is_found_anew) continue;
    check_tensor(checkpoint, file, name, entry.type);
    engine.states().write(entry, file.bytes(name).data());
  }
}

// An integer of the checkpoint's state; `otherwise` where it has none.
std::int64_t integer_of(const Checkpoint& checkpoint, const char* key, std::int64_t otherwise) {
  const auto found = checkpoint.info.state.find(key);
  if (found == checkpoint.info.state.end()) return otherwise;
  if (!found->is_number_integer()) {
    fail("checkpoint {}: \"{}\" is {}; expected an integer", checkpoint.directory.string(), key,
         found->dump());
  }
  return found->get<std::int64_t>();
}

// A resumed run must be told what the run was told, but for keys that cannot change its bits.
void check_same_run(const Job& job, const Checkpoint& checkpoint) {
  check_resumable(config_of(checkpoint), job.config);
  const std::int64_t samples = integer_of(checkpoint, "train_samples", job.train_set->size());
  if (samples != job.train_set->size()) {
    fail("the training set has {} samples, but had {} when checkpoint {} was written",
         job.train_set->size(), samples, checkpoint.directory.string());
  }
  if (data::to_json(task_of(checkpoint)) != data::to_json(job.task)) {
    fail(
        "the training data has another shape, classes, columns, tokens or normalization than when "
        "checkpoint {} was written",
        checkpoint.directory.string());
  }
}

// What the run has decided when it began.
Config as_begun(Config config, const Checkpoint& checkpoint) {
  std::int64_t& encoders = config.parallel.encoders;
  if (encoders == 0) encoders = config_of(checkpoint).parallel.encoders;
  return config;
}

// Where two texts of lines differ first: what stands there in each, with the line's section.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  std::istringstream lines_a(a), lines_b(b);
  std::string line_a, line_b, section;
  for (;;) {
    const bool more_a = static_cast<bool>(std::getline(lines_a, line_a));
    const bool more_b = static_cast<bool>(std::getline(lines_b, line_b));
    if (line_a != line_b || !more_a || !more_b) break;
    if (line_a.starts_with('[')) section = line_a.substr(1, line_a.size() - 2) + ".";
  }
  return {section + line_a, section + line_b};
}

// One run of training. The loop itself is in run(); what surrounds a step is in the functions it
// calls.
class Training {
 public:
  Training(const Config& config, const TrainRequest& request, TrainObserver& observer)
      : request_(request),
        observer_(observer),
        ranks_(request.ranks != nullptr ? *request.ranks : alone_) {
    check_equal(to_toml(config));
    if (ranks_.is_first()) lock_.emplace(config.output.dir);
    checkpoint_ = find_checkpoint(config);
    saver_.emplace(RunFolder::checkpoints(config), static_cast<int>(config.output.keep_checkpoints),
                   checkpoint_ ? std::optional(checkpoint_->info.step) : std::nullopt, ranks_);
    job_ = open_job(checkpoint_ ? as_begun(config, *checkpoint_) : config,
                    checkpoint_ ? choices_of(*checkpoint_) : KernelChoices(), &ranks_);
    saver_->begin(*job_.engine);
    make_local_sync();
    const std::int64_t first_step = checkpoint_ ? resume() : start();
    if (local_sync_) local_sync_->begin();
    check_equal(fmt::format(
        "training samples = {}\ntest samples = {}\nfirst step = {}\ncompute threads = {}\n",
        job_.train_set->size(), job_.test_set->size(), first_step + 1,
        job_.engine->policy().threads));
    if (ranks_.is_first()) folder_.emplace(config, first_step);
  }

  Summary run() {
    announce();
    start_ = now_seconds();
    const auto loader = job_.train_loader(progress_.step, progress_.total_steps);
    test_loader_ = job_.test_loader();
    loader->wait_until_ahead();
    speed_.resume(now_seconds());
    first_step_ = progress_.step;
    try {
      train_steps(*loader);
      if (trace_) write_trace();  // the run was shorter
      say_what_was_not_traced();
    } catch (const comm::RankError& error) {
      save_and_fail(error);
    }
    save_last();
    return summarize();
  }

 private:
  void train_steps(data::Loader& loader) {
    Engine& engine = *job_.engine;
    if (engine.overlaps_steps()) return stream_steps(loader);
    stops_ = stop_requested();
    while (loader.has_next() && !stops_) {
      begin_trace();
      const data::Batch& batch = next_batch(loader);
      const Samples samples = samples_of(batch);
      progress_.epoch = batch.epoch + 1;
      progress_.learning_rate = job_.learning_rate(batch.step);

      engine.begin_step({batch.step, batch.step_count, progress_.learning_rate});
      engine.accumulate(samples);
      const StepResult result = engine.reduce(wants_stop() | saver_->flags());
      stops_ = !local_sync_ && (result.flags & kStops) != 0;
      if (result.finite) {
        engine.update();
        skipped_in_a_row_ = 0;
      } else {
        handle_nonfinite(result, samples);
      }

      if (local_sync_) end_local_step();
      finish_step(batch.count, batch.step_count, result, loader.wait_seconds());
      look_at_states(result.flags);
      // Several ranks agree on it in the next step.
      if (ranks_.size() == 1 && !local_sync_) stops_ = stops_ || wants_stop() != 0;
    }
  }

  // Steps of a pipeline that does not flush: what is said of one is said while others go on. Where
  // the states are looked at, those before are ended first.
  void stream_steps(data::Loader& loader) {
    Engine& engine = *job_.engine;
    struct Begun {
      std::int64_t epoch, count, step_count;
      double learning_rate;
    };
    std::deque<Begun> begun;
    std::uint32_t flags = 0;
    const auto finish = [&](const StepResult& result) {
      const Begun step = begun.front();
      begun.pop_front();
      progress_.epoch = step.epoch;
      progress_.learning_rate = step.learning_rate;
      flags = result.flags;
      stops_ = stops_ || (flags & kStops) != 0;
      if (!result.finite) fail_with_nonfinite_weights(result);
      finish_step(step.count, step.step_count, result, loader.wait_seconds());
    };
    stops_ = stop_requested();
    while (loader.has_next() && !stops_) {
      begin_trace();
      const data::Batch& batch = next_batch(loader);
      begun.push_back(
          {batch.epoch + 1, batch.count, batch.step_count, job_.learning_rate(batch.step)});
      const auto ended = engine.stream({batch.step, batch.step_count, begun.back().learning_rate},
                                       samples_of(batch), wants_stop() | saver_->flags());
      const std::int64_t step = progress_.step + std::ssize(begun);
      if (ended) finish(*ended);
      const bool is_looked_at = stops_ || step == progress_.total_steps || evaluation_due(step) ||
                                step % checkpoint_period() == 0 ||
                                (ended && saver_->has_written(flags));
      if (!is_looked_at) continue;
      for (const StepResult& result : engine.drain()) finish(result);
      look_at_states(flags);
    }
  }

  // Other steps have begun with what the step made of the weights.
  [[noreturn]] void fail_with_nonfinite_weights(const StepResult& result) {
    report(saver_->wait_alone());
    fail(
        "step {} computed a number that is not finite (its loss is {}), and the weights were "
        "updated with it. Go on from the newest checkpoint in {}: --resume, or model.weights with "
        "a lower optimizer.learning_rate",
        progress_.step + 1, result.loss, RunFolder::checkpoints(job_.config).string());
  }

  // Of ranks that train by themselves: nothing that is said of the run is said of a period that has
  // not ended.
  void end_local_step() {
    const ParallelConfig& config = job_.config.parallel;
    const std::int64_t step = progress_.step + 1;
    const bool ends = step <= config.local_after || step % config.local_steps == 0 ||
                      step == progress_.total_steps || evaluation_due(step) ||
                      step % checkpoint_period() == 0;
    is_within_period_ = true;
    if (!ends) return;
    local_sync_->run(progress_.learning_rate);
    stops_ = stop_requested();
    is_within_period_ = false;
  }

  // The steps of output.trace_steps.
  bool is_traced() const {
    const OutputConfig& config = job_.config.output;
    const std::int64_t done = progress_.step - first_step_ - config.trace_after;
    return done >= 0 && done < config.trace_steps;
  }

  void begin_trace() {
    if (!is_traced()) return;
    if (!trace_) {
      constexpr std::size_t kMost = std::size_t{1} << 21;
      const auto steps = static_cast<std::size_t>(job_.config.output.trace_steps);
      trace_.emplace(std::min(kMost, steps * job_.engine->events_per_step()));
      job_.engine->set_trace(&*trace_);
    }
    trace_->skip_operations(ranks_);  // such as an evaluation's
    trace_->set_step(progress_.step + 1);
  }

  void end_trace() {
    if (!trace_) return;
    trace_->add_operations(ranks_);
    const OutputConfig& config = job_.config.output;
    if (progress_.step - first_step_ < config.trace_after + config.trace_steps) return;
    job_.engine->set_trace(nullptr);
    write_trace();
  }

  void say_what_was_not_traced() {
    const OutputConfig& config = job_.config.output;
    const std::int64_t steps = progress_.step - first_step_;
    if (config.trace_steps == 0 || steps > config.trace_after) return;
    observer_.message(
        fmt::format("no trace was written: {} to be traced from step {} on (output.trace_after = "
                    "{}), and this run ended after step {}",
                    config.trace_steps == 1 ? "a step was" : "steps were",
                    first_step_ + config.trace_after + 1, config.trace_after, progress_.step));
  }

  void write_trace() {
    const JobTrace all = gather_traces(*trace_, ranks_);
    const std::size_t dropped = trace_->dropped();
    const std::int64_t steps = progress_.step - first_step_ - job_.config.output.trace_after;
    trace_.reset();
    record([&](RunFolder& folder) {
      const std::string path = folder.write_trace(all);
      observer_.message(fmt::format(
          "trace of {} step{} in {}; to look at it: concord trace summary, or "
          "the page of Perfetto{}",
          steps, steps == 1 ? "" : "s", path,
          dropped == 0 ? "" : fmt::format("; {} events of rank 0 did not fit", dropped)));
    });
  }

  // `own`: lines of names and values, perhaps below names of sections in brackets. Throws Error, on
  // every rank, unless all of them say the same.
  void check_equal(const std::string& own) {
    const std::string first = ranks_.broadcast(own);
    if (ranks_.any_of(own != first ? 1 : 0) == 0) return;
    if (own != first) {
      const auto [ours, others] = first_difference(own, first);
      fail("rank {} has {}, and rank 0 has {}", ranks_.rank(), ours, others);
    }
    ranks_.barrier();  // ends in what the rank says that differs
  }

  void make_local_sync() {
    const ParallelConfig& config = job_.config.parallel;
    if (config.sync == "all_reduce") return;
    using Outer = LocalSyncOptions::Outer;
    local_sync_.emplace(
        job_.engine->states(), ranks_,
        LocalSyncOptions{.outer = config.sync == "diloco" ? Outer::kNesterov : Outer::kMean,
                         .learning_rate = config.outer_learning_rate,
                         .momentum = config.outer_momentum});
  }

  // The momenta of local_sync_, each with what a checkpoint calls it.
  template <typename Use>
  void for_each_outer_momentum(Use use) {
    if (!local_sync_ || !local_sync_->has_momentum()) return;
    for (const StateStore::Entry& entry : job_.engine->states().entries()) {
      if (entry.role != State::Role::kParameter) continue;
      use(entry.name + std::string(LocalSync::kSuffix), entry, local_sync_->momentum_of(entry));
    }
  }

  std::optional<Checkpoint> find_checkpoint(const Config& config) const {
    if (!request_.resume) return std::nullopt;
    auto checkpoint = load_latest(RunFolder::checkpoints(config));
    if (!checkpoint) {
      fail("there is nothing to resume: {} has no checkpoint; start without --resume",
           RunFolder::checkpoints(config).string());
    }
    return checkpoint;
  }

  std::int64_t start() {
    load_initial_weights(job_);
    return 0;
  }

  // Returns the step from which the run continues. Throws before anything in the folder has
  // changed.
  std::int64_t resume() {
    check_same_run(job_, *checkpoint_);
    const int threads = job_.engine->policy().threads;
    const std::int64_t before = integer_of(*checkpoint_, "threads", threads);
    if (threads != before) {
      observer_.message(fmt::format(
          "the run had {} compute threads until here and has {} now: its last bits may differ from "
          "those of an unbroken run",
          before, threads));
    }
    say_new_length(config_of(*checkpoint_).train.epochs);
    restore_state(*job_.engine, *checkpoint_);
    for_each_outer_momentum(
        [&](const std::string& name, const StateStore::Entry& entry, std::span<float> momentum) {
          check_tensor(*checkpoint_, checkpoint_->optimizer, name, entry.type);
          to_layout(entry.type, entry.layout, checkpoint_->optimizer.bytes(name).data(),
                    reinterpret_cast<std::byte*>(momentum.data()));
        });
    restore_window();
    progress_.step = saved_step_ = checkpoint_->info.step;
    progress_.epoch = (progress_.step + job_.steps_per_epoch() - 1) / job_.steps_per_epoch();
    checkpoint_.reset();
    return progress_.step;
  }

  // Some schedules stretch over the whole run.
  void say_new_length(std::int64_t epochs_before) {
    const std::int64_t epochs = job_.config.train.epochs;
    const std::string& schedule = job_.config.schedule.name;
    constexpr std::string_view kOfAnyLength[] = {"constant", "step", "inverse_time"};
    if (epochs == epochs_before || std::ranges::count(kOfAnyLength, schedule) > 0) return;
    observer_.message(
        fmt::format("the run began with train.epochs = {} and goes on with {}: its {} schedule is "
                    "stretched, so the learning rate jumps to that of a run of {} epochs",
                    epochs_before, epochs, schedule, epochs));
  }

  void announce() {
    const Config& config = job_.config;
    Engine& engine = *job_.engine;
    progress_.total_steps = std::max(job_.total_steps(), progress_.step);
    flops_per_sample_ = engine.flops_per_step() / static_cast<double>(engine.batch());
    observer_.started({.model = config.model.name,
                       .parameters = engine.parameter_count(),
                       .train_samples = job_.train_set->size(),
                       .test_samples = job_.test_set->size(),
                       .batch = engine.batch(),
                       .leaves = engine.leaves(),
                       .microbatch = engine.microbatch_size(),
                       .ranks = ranks_.size(),
                       .leaves_of_ranks = engine.leaves_of_ranks(),
                       .mesh = engine.plan().mesh,
                       .zero = config.parallel.zero,
                       .offload = config.parallel.offload,
                       .threads = engine.policy().threads,
                       .precision = engine.precision(),
                       .first_step = progress_.step,
                       .total_steps = progress_.total_steps,
                       .steps_per_epoch = job_.steps_per_epoch(),
                       .flops_per_step = engine.flops_per_step(),
                       .peak_flops_per_second = cpu::measure_peak_flops() * ranks_.size(),
                       .workspace_bytes = engine.workspace_bytes(),
                       .output_dir = config.output.dir});
    say_what_falls_short();
  }

  // No errors, since a short run may be a trial; but hardly what is wanted.
  void say_what_falls_short() {
    const std::int64_t batch = job_.config.train.batch, samples = job_.train_set->size();
    if (batch > samples) {
      observer_.message(
          fmt::format("train.batch = {}, but the training set has {} samples: each step takes "
                      "these alone",
                      batch, samples));
    }
    const std::int64_t warmup = job_.config.schedule.warmup_steps, steps = progress_.total_steps;
    if (warmup > steps) {
      observer_.message(fmt::format(
          "schedule.warmup_steps = {}, but the run ends after step {}: the learning rate "
          "does not reach optimizer.learning_rate",
          warmup, steps));
    }
    const parallel::Plan& plan = job_.engine->plan();
    if (!plan.whole_weights.empty()) {
      const parallel::WholeWeight& largest = plan.whole_weights.front();
      const std::size_t count = plan.whole_weights.size();
      observer_.message(fmt::format(
          "parallel.mesh: {} = {} does not divide {} weight{}, which every rank has all of; the "
          "largest is {} of {}",
          parallel::kTensorAxis, plan.mesh.extent(parallel::kTensorAxis), count,
          count == 1 ? "" : "s", quote(largest.name), to_string(largest.shape)));
    }
  }

  static constexpr std::uint32_t kStops = 1;
  static_assert((kStops & Saver::kWrites) == 0);
  std::uint32_t wants_stop() const {
    return request_.stop != nullptr && request_.stop->load() ? kStops : 0;
  }
  // Of any rank; collective.
  bool stop_requested() { return ranks_.any_of(wants_stop()) != 0; }

  const data::Batch& next_batch(data::Loader& loader) {
    const double start = now_seconds();
    try {
      const data::Batch& batch = loader.next();
      if (trace_) trace_->add(Lane::kData, "data wait", "", start, now_seconds());
      return batch;
    } catch (const Error& error) {
      save_and_fail(error);
    }
  }

  // Where there are no weights to save that a run could go on from.
  void fail_if_torn(std::string_view what) {
    const bool are_whole = job_.engine->states_are_whole();
    if (are_whole && !is_within_period_ && !divides_states()) return;
    report(saver_->wait_alone());
    fail("{}, and {}. --resume continues from the newest checkpoint in {}", what,
         divides_states() ? "each rank has a part of the weights"
         : are_whole      ? "ranks had weights of their own"
                          : "the weights were being updated",
         RunFolder::checkpoints(job_.config).string());
  }

  // What was learned so far is saved when the data fails.
  [[noreturn]] void save_and_fail(const Error& error) {
    if (!ranks_.is_first()) throw;  // rank 0 saves
    fail_if_torn(error.what());
    save_last();
    fail("{}. The weights of step {} are saved in {}; --resume continues from there", error.what(),
         progress_.step, RunFolder::checkpoints(job_.config).string());
  }

  // Of the first rank that has found one; states are those of all.
  std::string described(const Engine::Culprit& culprit) {
    if (local_sync_ || ranks_.size() == 1 || culprit.is_state) {
      return culprit.description.empty() ? "the sum over leaves" : culprit.description;
    }
    const std::vector<std::string> all = texts_of_ranks(ranks_, culprit.description);
    const auto found = std::ranges::find_if_not(all, &std::string::empty);
    if (found == all.end()) return "the sum over leaves";
    return fmt::format("{} on rank {}", *found, found - all.begin());
  }

  // The states are still those before the step: nothing is lost.
  void handle_nonfinite(const StepResult& result, const Samples& samples) {
    const Engine::Culprit culprit = job_.engine->find_nonfinite(samples);
    const std::string what =
        fmt::format("step {} computed a number that is not finite (its loss is {}), first in {}",
                    progress_.step + 1, result.loss, described(culprit));
    if (culprit.is_state) {
      report(saver_->wait_alone());
      fail(
          "{}. The weights of the last checkpoint in {} may be good: start a new run from them "
          "(model.weights) with a lower optimizer.learning_rate",
          what, RunFolder::checkpoints(job_.config).string());
    }
    constexpr int kMostSkippedInARow = 100;
    if (job_.config.train.nonfinite == "skip" && ++skipped_in_a_row_ <= kMostSkippedInARow) {
      ++skipped_steps_;
      observer_.message(what + "; the step is skipped (train.nonfinite = \"skip\")");
      return;
    }
    if (!divides_states()) fail_if_torn(what);
    save_last();
    if (skipped_in_a_row_ > kMostSkippedInARow) {
      fail(
          "{}; as in the {} steps before it, which were skipped: training no longer moves. Start a "
          "new run with a lower optimizer.learning_rate, or look for data that is not finite",
          what, kMostSkippedInARow);
    }
    fail(
        "{}. The weights before this step are saved in {}: start a new run from them "
        "(model.weights) "
        "with a lower optimizer.learning_rate or with optimizer.clip_norm, or pass over such steps "
        "with --resume --set train.nonfinite=skip",
        what, RunFolder::checkpoints(job_.config).string());
  }

  // `count`: of the step's samples, those of this rank.
  void finish_step(std::int64_t count, std::int64_t step_count, const StepResult& result,
                   double wait_seconds) {
    // Of local ranks each tells of its own.
    const auto samples = static_cast<double>(local_sync_ ? count : step_count);
    ++progress_.step;
    end_trace();
    samples_ += step_count;
    window_.samples += samples;
    window_.loss += result.loss * samples;
    window_.correct += result.correct;
    progress_.loss = result.loss;
    progress_.accuracy = job_.has_accuracy() ? result.correct / std::max(1.0, samples) : -1;
    progress_.staleness = result.staleness;
    measure_speed(step_count, wait_seconds);
    observer_.stepped(progress_);

    const TrainConfig& config = job_.config.train;
    const bool last = progress_.step == progress_.total_steps;
    if ((config.log_every > 0 && progress_.step % config.log_every == 0) || last) record_window();
  }

  // Evaluates and saves, where that is due. Collective, as steps are.
  void look_at_states(std::uint32_t flags) {
    if (progress_.step == progress_.total_steps || evaluation_due(progress_.step)) evaluate();
    if (!saver_->takes_part()) return;
    report(saver_->poll(flags));
    if (progress_.step % checkpoint_period() == 0 || is_best()) report(save());
  }

  bool divides_states() const { return job_.engine->states().is_divided(); }

  std::int64_t checkpoint_period() const {
    const std::int64_t every = job_.config.train.checkpoint_every_steps;
    return every > 0 ? every : job_.steps_per_epoch();
  }

  bool evaluation_due(std::int64_t step) const {
    const std::int64_t every = job_.config.train.eval_every_epochs;
    return every > 0 && step % (every * job_.steps_per_epoch()) == 0;
  }

  void measure_speed(std::int64_t samples, double wait_seconds) {
    const comm::Communicator::Usage usage = ranks_.usage();
    speed_.step(now_seconds(), samples,
                {.data_wait = wait_seconds - waited_before_,
                 .communication = usage.busy - usage_before_.busy,
                 .exposed = usage.waited - usage_before_.waited});
    waited_before_ = wait_seconds;
    usage_before_ = usage;
    progress_.samples_per_second = speed_.samples_per_second();
    progress_.flops_per_second = progress_.samples_per_second * flops_per_sample_;
    progress_.data_wait_fraction = speed_.data_wait_fraction();
    if (ranks_.size() > 1) {
      progress_.communication_fraction = speed_.communication_fraction();
      progress_.hidden_fraction = speed_.hidden_fraction();
    }
    const double steps_left = static_cast<double>(progress_.total_steps - progress_.step);
    progress_.eta_seconds = steps_left / speed_.steps_per_second();
    if (evaluation_) {
      progress_.eta_seconds += static_cast<double>(evaluations_left()) * evaluation_->seconds;
    }
  }

  // From the step just done on; the last step is followed by one.
  std::int64_t evaluations_left() const {
    const std::int64_t every = job_.config.train.eval_every_epochs * job_.steps_per_epoch();
    const std::int64_t last = progress_.total_steps;
    if (every == 0) return 1;
    return last / every - (progress_.step - 1) / every + (last % every != 0 ? 1 : 0);
  }

  void record_window() {
    if (window_.samples == 0) return;
    Progress mean = progress_;
    mean.loss = window_.loss / window_.samples;
    if (job_.has_accuracy()) mean.accuracy = window_.correct / window_.samples;
    record([&](RunFolder& folder) { folder.record_training(mean); });
    window_ = {};
  }

  // A record that cannot be written is lost, and the training is not.
  template <typename Write>
  void record(Write write) {
    if (!folder_) return;
    try {
      write(*folder_);
      records_fail_ = false;
    } catch (const Error& error) {
      if (!std::exchange(records_fail_, true)) {
        observer_.message(fmt::format(
            "{}; records of the metrics are lost until it can be written again", error.what()));
      }
    }
  }

  // Left out when a stop is requested meanwhile.
  void evaluate() {
    const double start = now_seconds();
    speed_.pause(start);
    if (test_loader_ == nullptr) test_loader_ = job_.test_loader();
    std::optional<Evaluation> evaluation;
    try {
      evaluation = evaluate_test_set(job_, *test_loader_, [this] {
        stops_ = stops_ || stop_requested();
        return stops_;
      });
    } catch (const Error& error) {
      save_and_fail(error);
    }
    test_loader_ = nullptr;
    if (progress_.step < progress_.total_steps) test_loader_ = job_.test_loader();
    if (evaluation) {
      evaluation_ = evaluation;
      evaluated_step_ = progress_.step;
      record([&](RunFolder& folder) { folder.record_evaluation(progress_, *evaluation_); });
      observer_.evaluated(progress_, *evaluation_);
    }
    const double end = now_seconds();
    pause_ += end - start;
    speed_.resume(end);
  }

  double score() const {
    return evaluation_->accuracy >= 0 ? evaluation_->accuracy : -evaluation_->loss;
  }

  // Whether the model was just evaluated and did better than those of all checkpoints.
  bool is_best() {
    if (!evaluation_ || evaluated_step_ != progress_.step) return false;
    report(saver_->wait());
    return saver_->is_best(score());
  }

  // Collective where ranks divide states. Returns what is wrong, where it cannot begin.
  std::optional<SaveResult> save() {
    report(saver_->wait());
    const Engine& engine = *job_.engine;
    CheckpointInfo info{.step = progress_.step, .epoch = progress_.step / job_.steps_per_epoch()};
    if (evaluation_ && evaluated_step_ == progress_.step) {
      info.score = score();
      info.metrics["test_loss"] = evaluation_->loss;
      if (job_.has_accuracy()) info.metrics["test_accuracy"] = evaluation_->accuracy;
    }
    info.state = {{"config", to_toml(job_.config)},
                  {"train_samples", job_.train_set->size()},
                  {"task", data::to_json(job_.task)},
                  {"window", {window_.samples, window_.loss, window_.correct}},
                  {"threads", engine.policy().threads},
                  {"kernel_choices", engine.policy().choices}};
    std::vector<Saver::Extra> momenta;
    for_each_outer_momentum([&](const std::string& name, const StateStore::Entry& entry,
                                std::span<const float> momentum) {
      momenta.push_back({name, entry.type, [&entry, momentum](std::byte* destination) {
                           from_layout(entry.type, entry.layout,
                                       reinterpret_cast<const std::byte*>(momentum.data()),
                                       destination);
                         }});
    });
    const std::optional<SaveResult> failed = saver_->save(std::move(info), momenta);
    if (saver_->begun_step() == progress_.step) saved_step_ = progress_.step;
    return failed;
  }

  void report(const std::optional<SaveResult>& save) {
    if (!save || save->error.empty()) return;
    observer_.message(save->error + "; training goes on, and saves again when it is next due");
  }

  // Makes sure that the newest weights are saved. Collective where ranks divide states.
  void save_last() {
    if (!saver_->takes_part()) return;
    std::optional<SaveResult> result;
    if (saved_step_ != progress_.step) result = save();
    if (!result) result = saver_->wait();
    if (result && !result->error.empty()) fail("{}", result->error);
  }

  // The means of metrics.jsonl go on where they were.
  void restore_window() {
    const auto found = checkpoint_->info.state.find("window");
    if (found == checkpoint_->info.state.end()) return;
    try {
      const auto sums = found->get<std::array<double, 3>>();
      window_ = {.samples = sums[0], .loss = sums[1], .correct = sums[2]};
    } catch (const nlohmann::json::exception& error) {
      fail("checkpoint {}: \"window\": {}", checkpoint_->directory.string(), error.what());
    }
  }

  Summary summarize() {
    if (progress_.step == progress_.total_steps && evaluated_step_ != progress_.step) evaluate();
    const double seconds = now_seconds() - start_;
    const bool evaluated = evaluated_step_ == progress_.step;
    const bool interrupted = progress_.step < progress_.total_steps || !evaluated;
    const double last_loss = samples_ > 0 ? progress_.loss : std::nan("");
    const Evaluation evaluation = evaluated ? evaluation_.value() : Evaluation{.loss = last_loss};
    if (evaluated && !std::isfinite(evaluation.loss)) {
      fail("the loss on the test set is {}; the weights of step {} are saved in {}",
           evaluation.loss, progress_.step, RunFolder::checkpoints(job_.config).string());
    }
    const std::string hash = hash_of_weights(*job_.engine);
    check_equal("weights_hash = " + hash + "\n");
    return {.step = progress_.step,
            .epoch = progress_.step / job_.steps_per_epoch(),
            .loss = evaluation.loss,
            .accuracy = evaluation.accuracy,
            .train_loss = samples_ > 0 ? std::optional(progress_.loss) : std::nullopt,
            .samples_per_second =
                seconds - pause_ > 0 ? static_cast<double>(samples_) / (seconds - pause_) : 0,
            .seconds = seconds,
            .peak_rss_bytes = peak_rss_bytes(),
            .predicted_peak_bytes = job_.memory.peak(),
            .weights_hash = hash,
            .skipped_steps = skipped_steps_,
            .interrupted = interrupted};
  }

  const TrainRequest& request_;
  TrainObserver& observer_;
  comm::Alone alone_;
  comm::Communicator& ranks_;
  // What resume() sets, before what calls it.
  Progress progress_;
  std::int64_t saved_step_ = -1;
  std::int64_t first_step_ = 0;  // from which this run goes on
  std::optional<Trace> trace_;
  struct {
    double samples = 0, loss = 0, correct = 0;
  } window_;  // since the last record

  bool stops_ = false;  // a rank was asked to; the same on every rank
  std::optional<LocalSync> local_sync_;
  bool is_within_period_ = false;  // of it: ranks have weights of their own
  std::int64_t skipped_steps_ = 0;
  int skipped_in_a_row_ = 0;
  std::optional<RunLock> lock_;           // of rank 0, as is folder_
  std::optional<Checkpoint> checkpoint_;  // what a resumed run continues from, until it has
  std::optional<Saver> saver_;            // refuses a folder that holds another run
  Job job_;
  std::optional<RunFolder> folder_;            // last: the first to change what is there
  std::unique_ptr<data::Loader> test_loader_;  // reads ahead for the next evaluation
  std::optional<Evaluation> evaluation_;       // the last one
  std::int64_t evaluated_step_ = -1;
  bool records_fail_ = false;
  double flops_per_sample_ = 0;
  double start_ = 0;
  double pause_ = 0;  // seconds spent evaluating, which speed does not count
  SpeedMeter speed_;
  double waited_before_ = 0;  // for data, up to the last step
  comm::Communicator::Usage usage_before_;
  std::int64_t samples_ = 0;  // of this run's steps
};

}  // namespace

std::size_t peak_rss_bytes() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

Summary train(const Config& config, const TrainRequest& request, TrainObserver& observer) {
  // It ends after the others have been told: what it has asked of them ends with that.
  std::optional<Training> training;
  try {
    return training.emplace(config, request, observer).run();
  } catch (const std::exception& error) {
    if (request.ranks != nullptr) {
      request.ranks->abort(fmt::format("rank {}: {}", request.ranks->rank(), error.what()));
    }
    throw;
  }
}

}  // namespace concord::train
