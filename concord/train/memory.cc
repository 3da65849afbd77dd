#include "concord/train/memory.h"

#include <fmt/format.h>
#include <malloc.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

#include "concord/base/error.h"
#include "concord/comm/planned.h"
#include "concord/train/config_contradiction.h"
#include "concord/train/saver.h"

namespace concord::train {
namespace {

constexpr std::size_t kUnlimited = std::numeric_limits<std::size_t>::max();

// The number that stands first in a file, or behind `key` in one of its lines.
std::optional<std::size_t> number_in(const std::string& path, std::string_view key = {}) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (!line.starts_with(key)) continue;
    const std::size_t digit = line.find_first_of("0123456789", key.size());
    if (digit == line.npos) return std::nullopt;
    std::size_t number = 0;
    std::from_chars(line.data() + digit, line.data() + line.size(), number);
    return number;
  }
  return std::nullopt;
}

// What a control group leaves: pages of files that nobody has used lately are given back at need.
std::size_t left_of(const std::string& limit, const std::string& usage,
                    const std::string& statistics, std::string_view unused) {
  const std::optional<std::size_t> most = number_in(limit), used = number_in(usage);
  if (!most || !used) return kUnlimited;
  const std::size_t kept = *used - std::min(*used, number_in(statistics, unused).value_or(0));
  return *most - std::min(*most, kept);
}

std::string mebibytes(std::size_t bytes) {
  return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20));
}

int ranks_of_host(const Job& job) {
  const comm::Communicator& ranks = job.engine->ranks();
  return ranks.has_common_memory() ? ranks.size() : 1;
}

// Another way to compute the same steps, in less memory.
struct Change {
  std::string text;
  Config config;
};

// The values of parallel.offload that offload more than the configured one, and go with the rest of
// the configuration; the one that offloads most is the last.
std::vector<std::string> values_that_offload_more(const Config& config) {
  const std::string& configured = config.parallel.offload;
  std::vector<std::string> values;
  if (configured == "none") values = {"optimizer", "activations"};
  if (configured != "all") values.emplace_back("all");
  std::erase_if(values, [&](const std::string& value) {
    Config changed = config;
    changed.parallel.offload = value;
    return find_contradiction(changed).has_value();
  });
  return values;
}

// What ranks may have in parts: no bits change with parallel.zero. Along "tensor" they do.
void add_divisions(std::vector<Change>& found, const Config& config, const Mesh& mesh) {
  if (config.parallel.sync != "all_reduce") return;
  const int data = mesh.extent(parallel::kDataAxis), tensor = mesh.extent(parallel::kTensorAxis);
  for (std::int64_t zero = config.parallel.zero + 1; zero <= 3 && data > 1; ++zero) {
    Change& change = found.emplace_back(Change{fmt::format("parallel.zero = {}", zero), config});
    change.config.parallel.zero = zero;
  }
  for (int share = 2; share <= data && config.parallel.leaves.empty(); share *= 2) {
    if (data % share != 0) break;
    Change& change = found.emplace_back(Change{
        fmt::format("parallel.mesh = {{ data = {}, tensor = {} }}", data / share, tensor * share),
        config});
    change.config.parallel.mesh["data"] = data / share;
    change.config.parallel.mesh["tensor"] = tensor * share;
  }
}

// The smallest change first. Recomputing and offloading change no bits, smaller microbatches do.
std::vector<Change> changes(const Config& config, const Mesh& mesh, std::int64_t microbatch) {
  std::vector<Change> found;
  const auto add = [&](const std::string& recompute, const std::string& offload,
                       std::int64_t samples) {
    Change change{.config = config};
    std::vector<std::string> words;
    if (recompute != config.train.recompute) {
      words.push_back(fmt::format("train.recompute = \"{}\"", recompute));
      change.config.train.recompute = recompute;
    }
    if (offload != config.parallel.offload) {
      words.push_back(fmt::format("parallel.offload = \"{}\"", offload));
      change.config.parallel.offload = offload;
    }
    if (samples != microbatch) {
      words.push_back(fmt::format("train.microbatch = {}", samples));
      change.config.train.microbatch = samples;
    }
    change.text = fmt::format("{}", fmt::join(words, " and "));
    found.push_back(std::move(change));
  };
  const std::string& recompute = config.train.recompute;
  const std::string& offload = config.parallel.offload;
  if (recompute == "none") add("selective", offload, microbatch);
  if (recompute != "full") add("full", offload, microbatch);
  add_divisions(found, config, mesh);
  const std::vector<std::string> offloads = values_that_offload_more(config);
  for (const std::string& more : offloads) add(recompute, more, microbatch);
  for (const std::string& more : offloads) {
    if (recompute != "full") add("full", more, microbatch);
  }
  for (std::int64_t samples = microbatch / 2; samples >= 1; samples /= 2) {
    add(recompute, offload, samples);
    if (recompute != "full") add("full", offload, samples);
    if (!offloads.empty()) add("full", offloads.back(), samples);
  }
  // Nothing is timed for a plan that may not fit.
  for (Change& change : found) change.config.train.kernels = "default";
  return found;
}

// Of the ranks of a job: how they are laid out, and what one at each place along "pipe" needs,
// since their stages differ.
struct MemoryOfPlaces {
  Mesh mesh;
  std::vector<MemoryReport> places;
};

MemoryOfPlaces memory_of_places(const Job& job, const Config& config) {
  const comm::Communicator& ranks = job.engine->ranks();
  MemoryOfPlaces memory;
  std::vector<int> first = {0};  // rank of each place
  for (std::size_t place = 0; place < first.size(); ++place) {
    comm::Planned planned(first[place], ranks.size(), ranks.has_common_memory());
    const std::unique_ptr<Engine> engine = plan_engine(job, config, planned);
    memory.mesh = engine->plan().mesh;
    first = memory.mesh.ranks_along(0, parallel::kPipeAxis);
    memory.places.push_back(memory_report(job, config, *engine));
    memory.places.back().process = job.memory.process;
  }
  return memory;
}

// What they have in common, and what the first has alone, counts once.
std::size_t bytes_of_host(const MemoryOfPlaces& memory, int ranks) {
  if (ranks == 1) {  // the others are elsewhere
    std::size_t most = 0;
    for (const MemoryReport& rank : memory.places) {
      most = std::max(most, rank.of_training() - rank.of_others);
    }
    return most;
  }
  const std::size_t count = static_cast<std::size_t>(ranks) / memory.places.size();
  const auto data = static_cast<std::size_t>(memory.mesh.extent(parallel::kDataAxis));
  std::size_t bytes = 0;
  for (const MemoryReport& rank : memory.places) {
    bytes += (rank.of_training() - rank.of_others) * count -
             rank.common_states * (count - count / data) - rank.checkpoint_of_first * (count - 1);
  }
  return bytes;
}

// What this host's ranks would need after a change; nothing where it does not go with the model or
// the optimizer.
std::optional<std::size_t> bytes_after(const Job& job, const Change& change, int ranks_of_host) {
  try {
    return bytes_of_host(memory_of_places(job, change.config), ranks_of_host);
  } catch (const Error&) {
    return std::nullopt;
  }
}

// Of memory that is taken while a state is read whole, what is read included
// (StateStore::read). Of several cuts each takes what the one before has left.
std::size_t bytes_to_read(const StateStore::Entry& entry) {
  std::size_t part = entry.part.bytes(), most = 0;
  for (auto cut = entry.cuts.rbegin(); cut != entry.cuts.rend(); ++cut) {
    const std::size_t joined = part * static_cast<std::size_t>(cut->ranks);
    most = std::max(most, part + 2 * joined);  // the part, those of all ranks, what they make
    part = joined;
  }
  const std::size_t numbers = entry.is_flat() ? entry.part.bytes() : 0;
  // Parameters are read for the run's hash; other states only into a copy, which is counted.
  const std::size_t whole = entry.role == State::Role::kOptimizer ? 0 : entry.type.bytes();
  return whole + numbers + most;
}

// Beside those of steps there is one after an epoch, or where the test set shows the best model.
std::int64_t steps_before_first_save(const Job& job, const Config& config) {
  const std::int64_t every = config.train.checkpoint_every_steps;
  return every > 0 ? std::min(every, job.steps_per_epoch()) : job.steps_per_epoch();
}

// Of the other ranks' sums each rank adds up its share.
std::size_t sums_of_others(const Engine& engine) {
  const auto ranks = static_cast<std::size_t>(engine.plan().mesh.extent(parallel::kDataAxis));
  if (!engine.plan().in_common || ranks == 1) return 0;
  return engine.training_program().sums_bytes / ranks * (ranks - 1);
}

// The most that this process ever had.
std::size_t highest_resident_bytes() {
  return number_in("/proc/self/status", "VmHWM:").value_or(0) * 1024;
}

}  // namespace

std::size_t available_bytes() {
  std::size_t available = kUnlimited;
  if (const auto left = number_in("/proc/meminfo", "MemAvailable:")) available = *left * 1024;
  const std::string v2 = "/sys/fs/cgroup/", v1 = "/sys/fs/cgroup/memory/";
  available = std::min(available, left_of(v2 + "memory.max", v2 + "memory.current",
                                          v2 + "memory.stat", "inactive_file "));
  return std::min(available, left_of(v1 + "memory.limit_in_bytes", v1 + "memory.usage_in_bytes",
                                     v1 + "memory.stat", "total_inactive_file "));
}

std::size_t resident_bytes() { return number_in("/proc/self/status", "VmRSS:").value_or(0) * 1024; }

MemoryReport memory_report(const Job& job, const Config& config, const Engine& engine) {
  malloc_trim(0);  // what was freed since the start, such as by timing kernels, is nobody's
  MemoryReport report{.process = resident_bytes(),
                      .states = engine.resident_state_bytes(),
                      .common_states = engine.states().common_bytes(),
                      .offloaded = engine.offloaded_bytes(),
                      .gradients = engine.sum_bytes(),
                      .workspace = engine.resident_workspace_bytes(),
                      .communication = engine.communication_bytes(),
                      .opening = highest_resident_bytes()};
  const data::Slice slice = engine.slice_of(config.train.batch);
  for (const data::Dataset* set : {job.train_set.get(), job.test_set.get()}) {
    report.loaders += data::Loader::bytes(*set, slice.end - slice.begin,
                                          {.threads = static_cast<int>(config.data.loader_threads),
                                           .prefetch = static_cast<int>(config.data.prefetch)});
  }
  // Where ranks divide states, each puts some of them together.
  const comm::Communicator& ranks = engine.ranks();
  const bool all_write = engine.states().is_divided();
  std::vector<int> writers(all_write ? static_cast<std::size_t>(ranks.size()) : 1);
  std::iota(writers.begin(), writers.end(), 0);
  const std::vector<int> writer = writers_of(engine.states(), writers);
  std::size_t kept = 0, reading = 0;
  for (std::size_t i = 0; i < writer.size(); ++i) {
    const StateStore::Entry& entry = engine.states().entries()[i];
    if (writer[i] == ranks.rank()) kept += entry.type.bytes();
    reading = std::max(reading, bytes_to_read(entry));
  }
  // The last copy is made when nothing of what is offloaded is in use.
  const bool saves_midway = job.total_steps() > steps_before_first_save(job, config);
  const auto beside_window = [&](std::size_t bytes) {
    return bytes - (saves_midway ? 0 : std::min(bytes, engine.offloaded_window_bytes()));
  };
  report.checkpoint = beside_window(reading + kept);
  report.of_others = sums_of_others(engine) + engine.reached_bytes();
  if (ranks.is_first() && !all_write) {
    report.checkpoint_of_first = report.checkpoint - beside_window(reading);
  }
  return report;
}

void check_memory(const Job& job) {
  const auto limit = static_cast<std::size_t>(job.config.train.memory_limit);
  const int ranks = ranks_of_host(job);
  // What is resident already is not taken once more.
  const std::size_t resident = job.memory.process * static_cast<std::size_t>(ranks);
  const std::size_t available = available_bytes();
  const std::size_t most = limit > 0                           ? limit
                           : available > kUnlimited - resident ? kUnlimited
                                                               : available + resident;
  const Mesh& mesh = job.engine->plan().mesh;
  const MemoryOfPlaces memory = mesh.extent(parallel::kPipeAxis) == 1
                                    ? MemoryOfPlaces{mesh, {job.memory}}
                                    : memory_of_places(job, job.config);
  const std::size_t needed = bytes_of_host(memory, ranks);
  if (needed <= most) return;

  std::string advice =
      "no train.recompute, parallel.zero, parallel.mesh, parallel.offload or train.microbatch "
      "makes "
      "it fit: expected a smaller model or batch, or more memory";
  for (const Change& change : changes(job.config, mesh, job.engine->microbatch_size())) {
    const std::optional<std::size_t> bytes = bytes_after(job, change, ranks);
    if (!bytes || *bytes > most) continue;
    advice = fmt::format("set {}, which needs {}", change.text, mebibytes(*bytes));
    break;
  }
  const auto dearest = std::ranges::max_element(memory.places, {}, &MemoryReport::of_training);
  const MemoryReport& m = *dearest;
  fail(
      "{} would need {} of memory, and {} {}: {}{} of states, {} of gradients, {} of workspace, {} "
      "of "
      "data, {} for checkpoints, {} of the process{}; {}",
      ranks == 1 ? "the run" : fmt::format("{} ranks", ranks), mebibytes(needed), mebibytes(most),
      limit > 0 ? "is train.memory_limit" : "is there",
      memory.places.size() == 1 ? ""
                                : fmt::format("at place {} along pipe, which needs most, ",
                                              dearest - memory.places.begin()),
      mebibytes(m.states), mebibytes(m.gradients), mebibytes(m.workspace), mebibytes(m.loaders),
      mebibytes(m.checkpoint), mebibytes(m.process), ranks == 1 ? "" : " for each", advice);
}

}  // namespace concord::train
