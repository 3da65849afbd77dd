// The machine as the operating system and hwloc describe it.
// Thread safety: describe_machine shares no state.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace concord::cli {

struct Cache {
  int level = 0;
  int count = 0;          // of this level in the machine
  std::size_t bytes = 0;  // of one
};

struct Machine {
  std::string processor;  // its maker's name for it; empty when unknown
  int packages = 0;
  int cores = 0;
  int hardware_threads = 0;
  int usable_threads = 0;  // in this process's affinity mask
  double cpu_quota = 0;    // processors' worth of time the container may use; 0: no limit
  int numa_nodes = 0;
  std::vector<Cache> caches;           // data caches, the nearest first
  std::size_t memory_bytes = 0;        // installed
  std::size_t memory_limit_bytes = 0;  // of the container; 0: no limit
  std::string vector_instructions;     // that Concord's kernels use
  std::string onednn_instructions;     // that oneDNN's kernels use

  std::size_t cache_bytes() const;  // of all caches of the last level together
};

// Throws Error when hwloc cannot read the machine.
Machine describe_machine();

// Bytes that programs of this machine, or of its container, can still take without others swapping.
std::size_t free_memory_bytes();

struct Library {
  std::string name;
  std::string version;
};

// The libraries in use: the version found at run time where the library tells it, else the one
// that was compiled against.
std::vector<Library> libraries();

}  // namespace concord::cli
