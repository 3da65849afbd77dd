#include "concord/net/environment.h"

#include <sys/types.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/base/text.h"
#include "concord/net/process.h"

namespace concord::net {
namespace {

constexpr int kMostRanks = 1 << 20;

class Reader {
 public:
  explicit Reader(const Variables& variables) : variables_(variables) {}

  bool has(const char* name) const { return variables_(name).has_value(); }
  std::string text(const char* name) const { return variables_(name).value_or(""); }
  int number(const char* name, int least, int most) const {
    const std::string given = text(name);
    int value = 0;
    const auto [end, error] = std::from_chars(given.data(), given.data() + given.size(), value);
    if (error != std::errc() || end != given.data() + given.size() || value < least ||
        value > most) {
      fail("{} = {} in the environment: expected {} to {}", name, quote(given), least, most);
    }
    return value;
  }
  // Whether a number is there and is `value`.
  bool is(const char* name, int value) const {
    return has(name) && number(name, 0, kMostRanks) == value;
  }

  // Rank and size; nullopt where either is missing or this is the only rank.
  std::optional<Placement> place(const char* launcher, const char* rank, const char* size) const {
    if (!has(rank) || !has(size)) return std::nullopt;
    const int ranks = number(size, 1, kMostRanks);
    if (ranks == 1) return std::nullopt;
    return Placement{.launcher = launcher, .rank = number(rank, 0, ranks - 1), .size = ranks};
  }

 private:
  const Variables& variables_;
};

std::optional<Placement> open_mpi(const Reader& read) {
  auto found = read.place("Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE");
  if (!found) return found;
  found->one_host = read.is("OMPI_COMM_WORLD_LOCAL_SIZE", found->size);
  for (const char* name : {"PMIX_NAMESPACE", "OMPI_MCA_ess_base_jobid"}) {
    if (found->job.empty() && read.has(name)) found->job = "open-mpi-" + read.text(name);
  }
  return found;
}

std::optional<Placement> slurm(const Reader& read) {
  auto found = read.place("Slurm", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS");
  if (!found) return found;
  found->one_host = read.is("SLURM_STEP_NUM_NODES", 1);
  found->job = fmt::format("slurm-{}.{}.{}", read.text("SLURM_JOB_ID"), read.text("SLURM_STEP_ID"),
                           read.text("SLURM_RESTART_COUNT"));
  return found;
}

// What started the ranks of this machine: the nearest ancestor that is not in the job itself.
std::string starter_of_ranks(std::string_view variable) {
  pid_t process = getppid();
  for (; process > 1; process = parent_of(process)) {
    std::string environment(1, '\0');
    try {
      environment += read_file(fmt::format("/proc/{}/environ", process), std::size_t{1} << 24);
    } catch (const Error&) {  // another user's
    }
    if (environment.find('\0' + std::string(variable) + '=') == std::string::npos) break;
  }
  return identity_of(process);
}

std::optional<Placement> mpich(const Reader& read) {
  auto found = read.place("MPICH", "PMI_RANK", "PMI_SIZE");
  if (!found) return found;
  found->one_host = read.is("MPI_LOCALNRANKS", found->size);
  if (found->one_host) found->job = "mpich-" + starter_of_ranks("PMI_RANK");
  return found;
}

std::optional<Placement> torchrun(const Reader& read) {
  auto found = read.place("torchrun", "RANK", "WORLD_SIZE");
  if (!found) return found;
  if (!read.has("MASTER_ADDR") || !read.has("MASTER_PORT")) {
    fail(
        "RANK and WORLD_SIZE in the environment say that this process is rank {} of {}, but "
        "MASTER_ADDR and MASTER_PORT do not say where rank 0 is: set them, or unset RANK",
        found->rank, found->size);
  }
  const Endpoint master{read.text("MASTER_ADDR"),
                        static_cast<std::uint16_t>(read.number("MASTER_PORT", 1, 65535))};
  const bool loopback =
      master.host == "localhost" || master.host.starts_with("127.") || master.host == "::1";
  found->one_host =
      read.has("LOCAL_WORLD_SIZE") ? read.is("LOCAL_WORLD_SIZE", found->size) : loopback;
  found->job = fmt::format("torchrun-{}-{}", to_string(master), read.text("TORCHELASTIC_RUN_ID"));
  // Otherwise torchrun itself has the port.
  if (read.text("TORCHELASTIC_USE_AGENT_STORE") != "True") found->store = master;
  return found;
}

std::optional<Placement> concord_launch(const Reader& read) {
  auto found = read.place(kOwnLauncher, "CONCORD_RANK", "CONCORD_RANKS");
  return found;
}

// mpirun and Hydra start one daemon on each node of an allocation by srun; the ranks that these
// start see its variables.
bool is_of_daemons(const Reader& read) {
  return read.text("SLURM_STEP_NUM_TASKS") == read.text("SLURM_STEP_NUM_NODES");
}

bool agree(const Placement& a, const Placement& b) { return a.rank == b.rank && a.size == b.size; }

std::string claim(const Placement& placement) {
  return fmt::format("{} has started this process as rank {} of {}", placement.launcher,
                     placement.rank, placement.size);
}

}  // namespace

std::optional<std::string> environment_variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? std::nullopt : std::optional<std::string>(value);
}

std::optional<Placement> find_placement(const Variables& variables) {
  const Reader read(variables);
  std::vector<Placement> found;
  for (const auto find : {concord_launch, open_mpi, mpich, slurm, torchrun}) {
    const std::optional<Placement> placement = find(read);
    if (!placement) continue;
    const bool disagrees = !found.empty() && !agree(found[0], *placement);
    if (find == slurm && disagrees && is_of_daemons(read)) continue;
    found.push_back(*placement);
  }
  if (found.empty()) return std::nullopt;
  // Slurm's own ranks may have MPICH's variables besides (srun --mpi=pmi2).
  std::size_t first = 0;
  for (std::size_t i = 1; i < found.size(); ++i) {
    if (!agree(found[0], found[i])) {
      fail("{}, but {}: unset the variables of one of them (docs/parallel.md)", claim(found[0]),
           claim(found[i]));
    }
    if (found[0].launcher == "MPICH" && found[i].launcher == "Slurm") first = i;
  }
  return found[first];
}

void check_alone() {
  if (const auto placement = find_placement()) {
    fail("{}: it cannot start ranks itself; leave out --ranks, or the other", claim(*placement));
  }
}

}  // namespace concord::net
