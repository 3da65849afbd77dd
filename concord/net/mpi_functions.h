// The few functions of MPI that the mpi transport calls, as a table. A shared object of its own
// hands it out, libconcord_mpi.so, which is loaded where it is used: nothing else is linked with
// MPI.
#pragma once

#include <cstddef>

namespace concord::net {

// All return null, or what MPI says went wrong, until the next call. Operations are known by a
// number below that given to start().
struct MpiFunctions {
  const char* (*start)(int operations, int* rank, int* size);
  const char* (*send)(int operation, int to, const void* data, std::size_t bytes);
  const char* (*receive)(int operation, int from, void* data, std::size_t bytes);
  const char* (*barrier)(int operation);
  // `bytes`: the length of what was received.
  const char* (*test)(int operation, bool* is_done, std::size_t* bytes);
  // A receive is not going to be completed.
  const char* (*cancel)(int operation);
  // Every rank calls it, when it has nothing under way.
  const char* (*end)();
};

// `extern "C" const MpiFunctions* concord_mpi_functions_1()`; the number grows with each change
// here.
using GetMpiFunctions = const MpiFunctions* (*)();
inline constexpr const char* kMpiSymbol = "concord_mpi_functions_1";
inline constexpr const char* kMpiPlugin = "libconcord_mpi.so";

}  // namespace concord::net
