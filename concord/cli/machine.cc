#include "concord/cli/machine.h"

#define PCRE2_CODE_UNIT_WIDTH 8  // bits, which pcre2.h asks for
#include <fmt/core.h>
#include <hwloc.h>
#include <hwy/highway.h>
#include <jpeglib.h>
#include <omp.h>
#include <oneapi/dnnl/dnnl.h>
#include <openssl/crypto.h>
#include <pcre2.h>
#include <png.h>
#include <toml++/toml.h>
#include <unistd.h>
#include <xxhash.h>
#include <zlib.h>

#include <CLI/Version.hpp>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>

#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/kernels/cpu/peak.h"

namespace concord::cli {
namespace {

struct DestroyTopology {
  void operator()(hwloc_topology_t topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<std::remove_pointer_t<hwloc_topology_t>, DestroyTopology>;

Topology load_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) fail("hwloc cannot start");
  Topology topology(raw);
  if (hwloc_topology_load(raw) != 0) fail("hwloc cannot read this machine's topology");
  return topology;
}

int count(const Topology& topology, hwloc_obj_type_t type) {
  return std::max(0, hwloc_get_nbobjs_by_type(topology.get(), type));
}

std::vector<Cache> caches(const Topology& topology) {
  constexpr hwloc_obj_type_t kLevels[] = {HWLOC_OBJ_L1CACHE, HWLOC_OBJ_L2CACHE, HWLOC_OBJ_L3CACHE,
                                          HWLOC_OBJ_L4CACHE};
  std::vector<Cache> result;
  int level = 0;
  for (const hwloc_obj_type_t type : kLevels) {
    ++level;
    const hwloc_obj_t first = hwloc_get_obj_by_type(topology.get(), type, 0);
    if (first == nullptr) continue;
    result.push_back({level, count(topology, type), first->attr->cache.size});
  }
  return result;
}

// The first words of a control group's file, empty where there is none (cgroup version 2).
std::string control_group(const char* file) {
  std::ifstream stream(fmt::format("/sys/fs/cgroup/{}", file));
  std::string line;
  std::getline(stream, line);
  return line;
}

// "max 100000" or "150000 100000": microseconds in each period.
double cpu_quota() {
  double quota = 0;
  double period = 0;
  const std::string line = control_group("cpu.max");
  const bool limited = std::sscanf(line.c_str(), "%lf %lf", &quota, &period) == 2 && period > 0;
  return limited ? quota / period : 0;
}

// 0 where the file has no number.
std::size_t bytes_of_control_group(const char* file) {
  unsigned long long bytes = 0;
  const std::string line = control_group(file);
  return std::sscanf(line.c_str(), "%llu", &bytes) == 1 ? static_cast<std::size_t>(bytes) : 0;
}

}  // namespace

std::size_t Machine::cache_bytes() const {
  return caches.empty() ? 0 : caches.back().bytes * static_cast<std::size_t>(caches.back().count);
}

Machine describe_machine() {
  const Topology topology = load_topology();
  Machine machine;
  const hwloc_obj_t package = hwloc_get_obj_by_type(topology.get(), HWLOC_OBJ_PACKAGE, 0);
  if (package != nullptr) {
    const char* model = hwloc_obj_get_info_by_name(package, "CPUModel");
    if (model != nullptr) machine.processor = model;
  }
  machine.packages = count(topology, HWLOC_OBJ_PACKAGE);
  machine.cores = count(topology, HWLOC_OBJ_CORE);
  machine.hardware_threads = count(topology, HWLOC_OBJ_PU);
  machine.usable_threads = available_cores();
  machine.cpu_quota = cpu_quota();
  machine.numa_nodes = count(topology, HWLOC_OBJ_NUMANODE);
  machine.caches = caches(topology);
  machine.memory_bytes = static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) *
                         static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  machine.memory_limit_bytes = bytes_of_control_group("memory.max");
  machine.vector_instructions = cpu::vector_instruction_set();
  machine.onednn_instructions = cpu::onednn_instruction_set();
  return machine;
}

std::size_t free_memory_bytes() {
  std::size_t free = 0;
  std::ifstream stream("/proc/meminfo");
  for (std::string line; std::getline(stream, line);) {
    unsigned long long kibibytes = 0;
    if (std::sscanf(line.c_str(), "MemAvailable: %llu kB", &kibibytes) == 1) free = kibibytes << 10;
  }
  if (const std::size_t limit = bytes_of_control_group("memory.max"); limit > 0) {
    free = std::min(free, limit - std::min(limit, bytes_of_control_group("memory.current")));
  }
  return free;
}

std::vector<Library> libraries() {
  const dnnl_version_t& onednn = *dnnl_version();
  const unsigned hwloc = hwloc_get_api_version();
  const unsigned xxhash = XXH_versionNumber();
  const png_uint_32 png = png_access_version_number();
  return {
      {"oneDNN", fmt::format("{}.{}.{}", onednn.major, onednn.minor, onednn.patch)},
      {"Highway", fmt::format("{}.{}.{}", HWY_MAJOR, HWY_MINOR, HWY_PATCH)},
      {"OpenMP", fmt::format("{}", _OPENMP)},
      {"hwloc", fmt::format("{}.{} (interface)", hwloc >> 16, (hwloc >> 8) & 255)},
      {"fmt",
       fmt::format("{}.{}.{}", FMT_VERSION / 10000, FMT_VERSION / 100 % 100, FMT_VERSION % 100)},
      {"toml++", fmt::format("{}.{}.{}", TOML_LIB_MAJOR, TOML_LIB_MINOR, TOML_LIB_PATCH)},
      {"nlohmann-json", fmt::format("{}.{}.{}", NLOHMANN_JSON_VERSION_MAJOR,
                                    NLOHMANN_JSON_VERSION_MINOR, NLOHMANN_JSON_VERSION_PATCH)},
      {"CLI11", CLI11_VERSION},
      {"xxHash", fmt::format("{}.{}.{}", xxhash / 10000, xxhash / 100 % 100, xxhash % 100)},
      {"zlib", zlibVersion()},
      {"OpenSSL", OpenSSL_version(OPENSSL_VERSION_STRING)},
      {"PCRE2", fmt::format("{}.{}", PCRE2_MAJOR, PCRE2_MINOR)},
      {"libjpeg-turbo", fmt::format("{}.{}.{}", LIBJPEG_TURBO_VERSION_NUMBER / 1000000,
                                    LIBJPEG_TURBO_VERSION_NUMBER / 1000 % 1000,
                                    LIBJPEG_TURBO_VERSION_NUMBER % 1000)},
      {"libpng", fmt::format("{}.{}.{}", png / 10000, png / 100 % 100, png % 100)},
  };
}

}  // namespace concord::cli
