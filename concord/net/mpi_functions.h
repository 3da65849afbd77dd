// The few functions of MPI that the mpi transport calls, as a table. A shared object of its own
// hands it out, libconcord_mpi.so, which is loaded where it is used: nothing else is linked with
// MPI.
#pragma once

#include <cstddef>

namespace concord::net {

// All return null, or what MPI says went wrong, until the thread's next call. Operations of a group
// of ranks are known by a number below that given to start(); group 0 is all of them.
// Thread safety: may be called by several threads.
struct MpiFunctions {
  const char* (*start)(int operations, int* rank, int* size);
  // The group of these `count` ranks, each of which calls it. Groups that are made at one time have
  // different tags.
  const char* (*group)(const int* ranks, int count, int tag, int* group);
  const char* (*send)(int group, int operation, int to, const void* data, std::size_t bytes);
  const char* (*receive)(int group, int operation, int from, void* data, std::size_t bytes);
  const char* (*barrier)(int group, int operation);
  // `bytes`: the length of what was received.
  const char* (*test)(int group, int operation, bool* is_done, std::size_t* bytes);
  // A receive is not going to be completed.
  const char* (*cancel)(int group, int operation);
  // Every rank calls it, when it has nothing under way.
  const char* (*end)();
};

// `extern "C" const MpiFunctions* concord_mpi_functions_2()`; the number grows with each change
// here.
using GetMpiFunctions = const MpiFunctions* (*)();
inline constexpr const char* kMpiSymbol = "concord_mpi_functions_2";
inline constexpr const char* kMpiPlugin = "libconcord_mpi.so";

}  // namespace concord::net
