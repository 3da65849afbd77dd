#include "concord/train/trainer.h"

#include <sys/resource.h>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/kernels/cpu/peak.h"
#include "concord/train/checkpoint.h"
#include "concord/train/checkpoint_store.h"
#include "concord/train/inference.h"
#include "concord/train/job.h"
#include "concord/train/run_folder.h"

namespace concord::train {
namespace {

void copy_state(const Engine& engine, Snapshot& snapshot) {
  for (const StateStore::Entry& entry : engine.states().entries()) {
    TensorMap& map = entry.role == State::Role::kOptimizer ? snapshot.optimizer : snapshot.weights;
    engine.states().read(entry, slot(map, entry.name, entry.type).data);
  }
}

// Every state from the checkpoint, bit for bit.
void restore_state(Engine& engine, const Checkpoint& checkpoint) {
  for (const StateStore::Entry& entry : engine.states().entries()) {
    const formats::SafetensorsFile& file =
        entry.role == State::Role::kOptimizer ? checkpoint.optimizer : checkpoint.weights;
    if (!file.contains(entry.name) || file.type(entry.name) != entry.type) {
      fail("checkpoint {} does not fit the configuration: it has no tensor \"{}\" of type {}",
           checkpoint.directory.string(), entry.name, to_string(entry.type));
    }
    engine.states().write(entry, file.bytes(entry.name).data());
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
  const auto text = checkpoint.info.state.find("config");
  if (text == checkpoint.info.state.end() || !text->is_string()) {
    fail("checkpoint {} does not hold the configuration of its run", checkpoint.directory.string());
  }
  const std::string source = (checkpoint.directory / "manifest.json").string();
  check_resumable(parse_config(text->get<std::string>(), source), job.config);
  const std::int64_t samples = integer_of(checkpoint, "train_samples", job.train_set->size());
  if (samples != job.train_set->size()) {
    fail("the training set has {} samples, but had {} when checkpoint {} was written",
         job.train_set->size(), samples, checkpoint.directory.string());
  }
}

// One run of training. The loop itself is in run(); what surrounds a step is in the functions it
// calls.
class Training {
 public:
  Training(const Config& config, const TrainRequest& request, TrainObserver& observer)
      : request_(request),
        observer_(observer),
        lock_(config.output.dir),
        checkpoint_(find_checkpoint(config)),
        store_(RunFolder::checkpoints(config), static_cast<int>(config.output.keep_checkpoints),
               checkpoint_ ? std::optional(checkpoint_->info.step) : std::nullopt),
        job_(open_job(config, checkpoint_ ? choices_of(*checkpoint_) : KernelChoices())),
        folder_(config, checkpoint_ ? resume() : 0) {}

  Summary run() {
    announce();
    Engine& engine = *job_.engine;
    const auto loader = job_.train_loader(progress_.step, progress_.total_steps);
    start_ = window_start_ = now_seconds();
    while (loader->has_next() && !stop_requested()) {
      const data::Batch& batch = loader->next();
      const Samples samples = samples_of(batch);
      progress_.epoch = batch.epoch;
      progress_.learning_rate = job_.learning_rate(batch.step);

      engine.begin_step({batch.step, batch.count, progress_.learning_rate});
      engine.accumulate(samples);
      const StepResult result = engine.reduce();
      if (result.finite) {
        engine.update();
      } else {
        handle_nonfinite(result, samples);
      }

      finish_step(batch, result, loader->wait_seconds());
    }
    if (saved_step_ != progress_.step) save();
    store_.wait();
    return summarize();
  }

 private:
  std::optional<Checkpoint> find_checkpoint(const Config& config) const {
    if (!request_.resume) return std::nullopt;
    auto checkpoint = load_latest(RunFolder::checkpoints(config));
    if (!checkpoint) {
      fail("there is nothing to resume: {} has no checkpoint; start without --resume",
           RunFolder::checkpoints(config).string());
    }
    return checkpoint;
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
    restore_state(*job_.engine, *checkpoint_);
    progress_.step = saved_step_ = checkpoint_->info.step;
    checkpoint_.reset();
    return progress_.step;
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
                       .threads = engine.policy().threads,
                       .first_step = progress_.step,
                       .total_steps = progress_.total_steps,
                       .steps_per_epoch = job_.steps_per_epoch(),
                       .flops_per_step = engine.flops_per_step(),
                       .peak_flops_per_second = cpu::measure_peak_flops(),
                       .arena_bytes = engine.arena_bytes(),
                       .output_dir = config.output.dir});
  }

  bool stop_requested() const { return request_.stop != nullptr && request_.stop->load(); }

  // The states are still those before the step: nothing is lost.
  void handle_nonfinite(const StepResult& result, const Samples& samples) {
    const std::string culprit = job_.engine->find_nonfinite(samples);
    const std::string what = fmt::format(
        "step {} computed a number that is not finite (its loss is {}), first in {}",
        progress_.step + 1, result.loss, culprit.empty() ? "the sum over leaves" : culprit);
    if (job_.config.train.nonfinite == "skip") {
      ++skipped_steps_;
      observer_.message(what + "; the step is skipped (train.nonfinite = \"skip\")");
      return;
    }
    if (saved_step_ != progress_.step) save();
    store_.wait();
    fail(
        "{}. The weights before this step are saved in {}; lower optimizer.learning_rate, clip "
        "gradients (optimizer.clip_norm), or pass over such steps with train.nonfinite = \"skip\"",
        what, RunFolder::checkpoints(job_.config).string());
  }

  void finish_step(const data::Batch& batch, const StepResult& result, double wait_seconds) {
    const auto samples = static_cast<double>(batch.count);
    ++progress_.step;
    samples_ += batch.count;
    window_.samples += samples;
    window_.loss += result.loss * samples;
    window_.correct += result.correct;
    progress_.loss = last_loss_ = result.loss;
    progress_.accuracy = job_.classifies() ? result.correct / samples : -1;
    measure_speed(wait_seconds);
    observer_.stepped(progress_);

    const TrainConfig& config = job_.config.train;
    const bool last = progress_.step == progress_.total_steps;
    const bool epoch_ends = progress_.step % job_.steps_per_epoch() == 0;
    if ((config.log_every > 0 && progress_.step % config.log_every == 0) || last) record_window();
    const std::int64_t epochs = progress_.step / job_.steps_per_epoch();
    const bool evaluation_due =
        epoch_ends && config.eval_every_epochs > 0 && epochs % config.eval_every_epochs == 0;
    if (evaluation_due || last) evaluate();
    const std::int64_t every = config.checkpoint_every_steps;
    if (every > 0 ? progress_.step % every == 0 : epoch_ends) save();
  }

  // Speed over the last seconds: a window is closed when it is 2 s long.
  void measure_speed(double wait_seconds) {
    const double now = now_seconds();
    ++speed_steps_;
    speed_samples_ = samples_ - speed_samples_before_;
    const double elapsed = now - window_start_;
    if (elapsed > 0 && (elapsed >= 2.0 || progress_.samples_per_second == 0)) {
      progress_.samples_per_second = static_cast<double>(speed_samples_) / elapsed;
      progress_.flops_per_second = progress_.samples_per_second * flops_per_sample_;
      progress_.data_wait_fraction = (wait_seconds - wait_before_) / elapsed;
      const double left = static_cast<double>(progress_.total_steps - progress_.step);
      progress_.eta_seconds = left * elapsed / static_cast<double>(speed_steps_);
      restart_speed_window(wait_seconds);
    }
  }
  void restart_speed_window(double wait_seconds) {
    window_start_ = now_seconds();
    wait_before_ = wait_seconds;
    speed_samples_before_ = samples_;
    speed_steps_ = 0;
  }

  void record_window() {
    if (window_.samples == 0) return;
    Progress mean = progress_;
    mean.loss = window_.loss / window_.samples;
    if (job_.classifies()) mean.accuracy = window_.correct / window_.samples;
    folder_.record_training(mean);
    window_ = {};
  }

  void evaluate() {
    const double start = now_seconds();
    evaluation_ = evaluate_test_set(job_);
    evaluated_step_ = progress_.step;
    folder_.record_evaluation(progress_, *evaluation_);
    observer_.evaluated(progress_, *evaluation_);
    pause_ += now_seconds() - start;
    window_start_ += now_seconds() - start;
  }

  void save() {
    Engine& engine = *job_.engine;
    Snapshot snapshot = store_.take_snapshot();
    snapshot.info = {};
    snapshot.info.step = progress_.step;
    snapshot.info.epoch = progress_.step / job_.steps_per_epoch();
    if (evaluation_ && evaluated_step_ == progress_.step) {
      const bool accurate = evaluation_->accuracy >= 0;
      snapshot.info.score = accurate ? evaluation_->accuracy : -evaluation_->loss;
      snapshot.info.metrics["test_loss"] = evaluation_->loss;
      if (accurate) snapshot.info.metrics["test_accuracy"] = evaluation_->accuracy;
    }
    snapshot.info.state = {{"config", to_toml(job_.config)},
                           {"train_samples", job_.train_set->size()},
                           {"threads", engine.policy().threads},
                           {"kernel_choices", engine.policy().choices}};
    copy_state(engine, snapshot);
    store_.save(std::move(snapshot));
    saved_step_ = progress_.step;
  }

  Summary summarize() {
    const double seconds = now_seconds() - start_;
    const bool interrupted = progress_.step < progress_.total_steps;
    if (!evaluation_ || evaluated_step_ != progress_.step) {
      evaluation_ = interrupted ? Evaluation{.loss = last_loss_} : evaluate_test_set(job_);
    }
    return {.step = progress_.step,
            .epoch = progress_.step / job_.steps_per_epoch(),
            .loss = evaluation_->loss,
            .accuracy = evaluation_->accuracy,
            .train_loss = last_loss_,
            .samples_per_second =
                seconds - pause_ > 0 ? static_cast<double>(samples_) / (seconds - pause_) : 0,
            .seconds = seconds,
            .peak_rss_bytes = peak_rss_bytes(),
            .weights_hash = hash_of_weights(*job_.engine),
            .skipped_steps = skipped_steps_,
            .interrupted = interrupted};
  }

  const TrainRequest& request_;
  TrainObserver& observer_;
  Progress progress_;
  std::int64_t saved_step_ = -1;
  std::int64_t skipped_steps_ = 0;
  RunLock lock_;
  std::optional<Checkpoint> checkpoint_;  // what a resumed run continues from, until it has
  CheckpointStore store_;                 // refuses a folder that holds another run
  Job job_;
  RunFolder folder_;  // last: the first to change what is there
  std::optional<Evaluation> evaluation_;
  std::int64_t evaluated_step_ = -1;
  double flops_per_sample_ = 0;
  double last_loss_ = 0;
  double start_ = 0;
  double pause_ = 0;  // seconds spent evaluating, which speed does not count

  struct {
    double samples = 0, loss = 0, correct = 0;
  } window_;  // since the last record
  std::int64_t samples_ = 0;
  double window_start_ = 0;  // of the speed window
  double wait_before_ = 0;
  std::int64_t speed_samples_before_ = 0;
  std::int64_t speed_samples_ = 0;
  std::int64_t speed_steps_ = 0;
};

}  // namespace

std::size_t peak_rss_bytes() {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::size_t>(usage.ru_maxrss) * 1024;
}

Summary train(const Config& config, const TrainRequest& request, TrainObserver& observer) {
  return Training(config, request, observer).run();
}

}  // namespace concord::train
