// A cluster (parallel/cluster.h) as a file in TOML:
//
//   [[hosts]]                       # in the order in which ranks are placed
//   name = "node"
//   count = 16                      # so many that are alike; 1 unless given
//   ranks = 2                       # of each
//   speed = 1.0                     # beside this machine, which is measured; 1 unless given
//
//   [[hosts]]
//   name = "fat"
//   gpus = 8                        # or so many GPUs, with a rank each
//   flops_per_second = 6e13         # of each GPU, as far as it is reached
//   memory_bytes_per_second = 2e12
//
//   [inside]                        # between ranks of a host; as measured here unless given
//   bytes_per_second = 1e11
//   latency_seconds = 5e-6
//
//   [between]                       # between hosts
//   bytes_per_second = 1.25e9
//   latency_seconds = 2e-5
//
//   [[links]]                       # between hosts of two kinds, in the place of [between]
//   hosts = ["node", "fat"]
//   bytes_per_second = 1.25e8
//   latency_seconds = 1e-3
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "concord/parallel/cluster.h"

namespace concord::train {

// Throws Error, in one line that names the file and the key, for what is not that.
parallel::Cluster read_cluster(const std::filesystem::path& path);
parallel::Cluster parse_cluster(std::string_view text, std::string_view file_name);

// The same as text.
std::string to_toml(const parallel::Cluster& cluster);

}  // namespace concord::train
