// The ways in which ranks that send each other messages add up numbers, and which of them is the
// fastest where. What each does, and its sources: reduction.h.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace concord::comm {

enum class Algorithm { kAuto, kDirect, kHalvingDoubling, kChain, kHierarchical, kRing };

// "auto", "direct", "halving_doubling", "chain", "hierarchical", "ring".
std::vector<std::string_view> algorithm_names();
std::string_view name_of(Algorithm algorithm);
// Throws Error for another name.
Algorithm algorithm_of(std::string_view name);

// The ranks of a job, and what carries what they tell each other.
struct Topology {
  std::string transport;  // "shm", "gloo", "mpi"
  int size = 1;
  std::vector<int> hosts = {};  // by rank, a number for each machine; empty: all are on one

  bool is_one_host() const;
  // Where every host has equally many, one host's ranks after another's; else 0.
  int ranks_of_each_host() const;
};

// Throws Error, which names both, where the one is not for the other. `any_order`: sums need not
// have the bits of the canonical tree.
void check_algorithm(Algorithm algorithm, const Topology& topology, bool any_order);

// From a measured table: the fastest way to add up so many bytes of each rank.
Algorithm fastest_algorithm(const Topology& topology, std::size_t bytes);

}  // namespace concord::comm
