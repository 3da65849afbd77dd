#include "concord/net/mpi_transport.h"

#include <dlfcn.h>
#include <fmt/ranges.h>
#include <link.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "concord/base/log.h"
#include "concord/net/futex.h"
#include "concord/net/mpi_functions.h"
#include "concord/net/process.h"
#include "concord/net/rendezvous.h"

namespace concord::net {
namespace {

namespace fs = std::filesystem;

// The folder of the library or program that this code is part of. The loader knows a program by the
// word alone that started it, and has no name for it in its list.
fs::path own_folder() {
  Dl_info info;
  link_map* part = nullptr;
  if (dladdr1(reinterpret_cast<const void*>(&make_mpi_transport), &info,
              reinterpret_cast<void**>(&part), RTLD_DL_LINKMAP) == 0) {
    return {};
  }
  const std::string file = *part->l_name == '\0' ? own_program() : part->l_name;
  std::error_code error;
  return fs::canonical(file, error).parent_path();
}

std::vector<fs::path> plugin_folders() {
  const fs::path own = own_folder();
  // As built, as installed beside the library, and as installed with the command.
  std::vector<fs::path> folders = {own, own / "concord",
                                   own.parent_path() / CONCORD_LIBRARY_FOLDER / "concord"};
  if (const char* const given = std::getenv("CONCORD_PLUGINS")) {
    std::istringstream rest(given);
    for (std::string folder; std::getline(rest, folder, ':');) folders.emplace_back(folder);
  }
  return folders;
}

const MpiFunctions& load_mpi() {
  const std::vector<fs::path> folders = plugin_folders();
  for (const fs::path& folder : folders) {
    const fs::path file = folder / kMpiPlugin;
    if (!fs::exists(file)) continue;
    // Global: MPI's own plugins use what is in MPI.
    void* const plugin = dlopen(file.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (plugin == nullptr) {
      fail("the transport mpi cannot load {}: {}; it needs MPI (Debian: openmpi-bin)",
           file.string(), dlerror());
    }
    const auto get = reinterpret_cast<GetMpiFunctions>(dlsym(plugin, kMpiSymbol));
    if (get == nullptr) fail("{} belongs to another version of Concord", file.string());
    return *get();
  }
  std::vector<std::string> names;
  for (const fs::path& folder : folders) names.push_back(folder.string());
  fail(
      "the transport mpi needs {}, which is not in {}: build Concord where MPI is installed "
      "(Debian: libopenmpi-dev), or name its folder in CONCORD_PLUGINS",
      kMpiPlugin, fmt::join(names, ", "));
}

class MpiTransport final : public Transport {
 public:
  MpiTransport(const TransportOptions& options, StoreClient& store, Deadline deadline)
      : Transport(options), mpi_(load_mpi()) {
    // MPI would wait for ever for a rank that does not come.
    Rendezvous rendezvous(name(), rank(), store, deadline, group());
    rendezvous.announce("here");
    for (int r = 0; r < size(); ++r) rendezvous.of(r);
    if (!group().members.empty()) {
      join_group();
      return;
    }
    static std::atomic<bool> was_started = false;
    if (was_started.exchange(true)) fail("MPI can be started only once in a process");
    int mpi_rank = 0, mpi_size = 1;
    if (const char* const why = mpi_.start(kMostRequests + 1, &mpi_rank, &mpi_size)) {
      fail("MPI could not be started: {}", why);
    }
    if (mpi_size == 1) {
      fail(
          "MPI knows this process as the only one, and there are {} ranks: the transport mpi is "
          "for ranks that are started by mpirun",
          size());
    }
    if (mpi_rank != rank() || mpi_size != size()) {
      fail(
          "MPI says that this is rank {} of {}, and it is rank {} of {}: the transport mpi is for "
          "ranks that are started by mpirun",
          mpi_rank, mpi_size, rank(), size());
    }
    is_started_ = true;
  }
  ~MpiTransport() override {
    if (is_started_ && !has_failed()) end();
  }

  std::string_view name() const override { return "mpi"; }

 private:
  // Of the ranks of the job's transport, which ends it too. Groups that have no rank in common are
  // made at one time.
  void join_group() {
    const std::vector<int>& ranks = group().members;
    if (const char* const why = mpi_.group(ranks.data(), size(), ranks.front(), &number_)) {
      fail("MPI could not put ranks {} together: {}", fmt::join(ranks, ", "), why);
    }
  }

  void begin(std::uint32_t slot) override {
    const Operation& asked = operation(slot);
    const int number = static_cast<int>(slot);
    check(slot, asked.is_send
                    ? mpi_.send(number_, number, asked.peer, asked.source, asked.bytes)
                    : mpi_.receive(number_, number, asked.peer, asked.target, asked.bytes));
  }

  void finish(std::uint32_t slot, const Deadline& deadline, bool patient) override {
    const Operation& asked = operation(slot);
    std::size_t bytes = 0;
    bool is_done = false;
    for (int tries = 0;; ++tries) {
      check(slot, mpi_.test(number_, static_cast<int>(slot), &is_done, &bytes));
      if (is_done) break;
      check_interrupted();
      check_deadline(slot, deadline);
      pause(patient ? kSpins + kYields : tries);
    }
    if (!asked.is_send && bytes != asked.bytes) fail_by_size(slot, bytes);
  }

  // MPI moves messages while it is asked whether they have come; the less often, the longer it
  // takes.
  static constexpr int kSpins = 1000, kYields = 10000;
  static void pause(int tries) {
    if (tries < kSpins) return relax();
    if (tries < kSpins + kYields) return void(sched_yield());
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }

  void check(std::uint32_t slot, const char* why) const {
    if (why != nullptr) fail_by_peer(slot, fmt::format("was lost to MPI ({})", why));
  }

  void wake() override {}  // a wait looks again by itself
  void stop() noexcept override {
    for (std::uint32_t slot = 0; slot < kMostRequests; ++slot)
      mpi_.cancel(number_, static_cast<int>(slot));
  }

  // Without all others MPI_Finalize would not return.
  void end() const {
    constexpr double kSeconds = 60;
    constexpr int kBarrier = kMostRequests;
    const Deadline deadline = Deadline::in(kSeconds);
    const char* why = mpi_.barrier(number_, kBarrier);
    bool is_done = false;
    std::size_t bytes = 0;
    for (int tries = 0; why == nullptr && !is_done && !deadline.has_passed(); ++tries) {
      why = mpi_.test(number_, kBarrier, &is_done, &bytes);
      pause(tries);
    }
    if (is_done) why = mpi_.end();
    if (!is_done && why == nullptr) why = "a rank does not come to its end";
    if (why != nullptr) log("MPI is left without its end: {}", why);
  }

  const MpiFunctions& mpi_;
  int number_ = 0;  // of the group, as MPI's functions know it
  bool is_started_ = false;
};

}  // namespace

std::unique_ptr<Transport> make_mpi_transport(const TransportOptions& options, StoreClient& store,
                                              Deadline deadline) {
  return std::make_unique<MpiTransport>(options, store, deadline);
}

}  // namespace concord::net
