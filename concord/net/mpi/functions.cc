// libconcord_mpi.so: see mpi_functions.h. Linked with MPI, and with nothing of Concord.
#include <mpi.h>

#include <deque>
#include <mutex>
#include <string>
#include <vector>

#include "concord/net/mpi_functions.h"

namespace {

using concord::net::MpiFunctions;

struct Operation {
  MPI_Request request = MPI_REQUEST_NULL;
  bool is_receive = false;
  std::size_t bytes = 0;  // expected
};

struct Group {
  MPI_Comm ranks = MPI_COMM_NULL;
  std::vector<Operation> operations;
};

std::mutex calling;  // MPI, which takes one thread at a time
std::deque<Group> groups;
bool is_started_here = false;

const char* describe(int error) {
  thread_local std::string text;
  if (error == MPI_SUCCESS) return nullptr;
  char buffer[MPI_MAX_ERROR_STRING];
  int size = 0;
  MPI_Error_string(error, buffer, &size);
  text.assign(buffer, static_cast<std::size_t>(size));
  return text.c_str();
}

MPI_Comm ranks_of(int group) { return groups[static_cast<std::size_t>(group)].ranks; }

Operation& at(int group, int operation) {
  return groups[static_cast<std::size_t>(group)].operations[static_cast<std::size_t>(operation)];
}

const char* start(int count, int* rank, int* size) {
  const std::lock_guard lock(calling);
  Group& all = groups.emplace_back();
  all.operations.resize(static_cast<std::size_t>(count));
  int was_started = 0, level = MPI_THREAD_SINGLE;
  MPI_Initialized(&was_started);
  is_started_here = was_started == 0;
  // By one thread at a time, which need not be the one that starts.
  const int error = is_started_here
                        ? MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &level)
                        : MPI_Query_thread(&level);
  if (error != MPI_SUCCESS) return describe(error);
  if (level < MPI_THREAD_SERIALIZED) return "it may be called by its first thread only";
  if (const int refused = MPI_Comm_dup(MPI_COMM_WORLD, &all.ranks)) return describe(refused);
  MPI_Comm_set_errhandler(all.ranks, MPI_ERRORS_RETURN);
  MPI_Comm_rank(all.ranks, rank);
  MPI_Comm_size(all.ranks, size);
  return nullptr;
}

const char* make_group(const int* ranks, int count, int tag, int* number) {
  const std::lock_guard lock(calling);
  Group group{.operations = std::vector<Operation>(groups.front().operations.size())};
  MPI_Group all = MPI_GROUP_NULL, chosen = MPI_GROUP_NULL;
  if (const int error = MPI_Comm_group(groups.front().ranks, &all)) return describe(error);
  int error = MPI_Group_incl(all, count, ranks, &chosen);
  if (error == MPI_SUCCESS) {
    error = MPI_Comm_create_group(groups.front().ranks, chosen, tag, &group.ranks);
    MPI_Group_free(&chosen);
  }
  MPI_Group_free(&all);
  if (error != MPI_SUCCESS) return describe(error);
  MPI_Comm_set_errhandler(group.ranks, MPI_ERRORS_RETURN);
  *number = static_cast<int>(groups.size());
  groups.push_back(std::move(group));
  return nullptr;
}

const char* send(int group, int operation, int to, const void* data, std::size_t bytes) {
  const std::lock_guard lock(calling);
  at(group, operation) = {};
  return describe(MPI_Isend(data, static_cast<int>(bytes), MPI_BYTE, to, 0, ranks_of(group),
                            &at(group, operation).request));
}

const char* receive(int group, int operation, int from, void* data, std::size_t bytes) {
  const std::lock_guard lock(calling);
  at(group, operation) = {.is_receive = true, .bytes = bytes};
  return describe(MPI_Irecv(data, static_cast<int>(bytes), MPI_BYTE, from, 0, ranks_of(group),
                            &at(group, operation).request));
}

const char* barrier(int group, int operation) {
  const std::lock_guard lock(calling);
  at(group, operation) = {};
  return describe(MPI_Ibarrier(ranks_of(group), &at(group, operation).request));
}

const char* test(int group, int operation, bool* is_done, std::size_t* bytes) {
  const std::lock_guard lock(calling);
  MPI_Status status;
  int done = 0;
  const int error = MPI_Test(&at(group, operation).request, &done, &status);
  *is_done = done != 0;
  if (!at(group, operation).is_receive || (error == MPI_SUCCESS && done == 0))
    return describe(error);
  int kind = MPI_SUCCESS, count = 0;
  MPI_Error_class(error, &kind);
  if (kind == MPI_SUCCESS || kind == MPI_ERR_TRUNCATE) MPI_Get_count(&status, MPI_BYTE, &count);
  *bytes = static_cast<std::size_t>(count);
  // Of too long a message Open MPI says how long it is.
  if (*bytes > at(group, operation).bytes) *is_done = true;
  return *is_done ? nullptr : describe(error);
}

// A send needs no more of its memory than MPI's calls read.
const char* cancel(int group, int operation) {
  const std::lock_guard lock(calling);
  MPI_Request& request = at(group, operation).request;
  if (request == MPI_REQUEST_NULL || !at(group, operation).is_receive) return nullptr;
  if (const int error = MPI_Cancel(&request)) return describe(error);
  return describe(MPI_Request_free(&request));
}

const char* end() {
  const std::lock_guard lock(calling);
  for (Group& group : groups) {
    if (const int error = MPI_Comm_free(&group.ranks)) return describe(error);
  }
  return is_started_here ? describe(MPI_Finalize()) : nullptr;
}

}  // namespace

extern "C" const MpiFunctions* concord_mpi_functions_2() {
  static const MpiFunctions functions{start, make_group, send, receive, barrier, test, cancel, end};
  return &functions;
}
