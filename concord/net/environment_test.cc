#include "concord/net/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "concord/base/error.h"

namespace concord::net {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;
using testing::ThrowsMessage;
using Map = std::map<std::string, std::string>;

std::optional<Placement> found_in(const Map& variables) {
  return find_placement([&](const char* name) -> std::optional<std::string> {
    const auto found = variables.find(name);
    return found == variables.end() ? std::nullopt : std::optional(found->second);
  });
}

Map operator+(Map a, const Map& b) {
  a.insert(b.begin(), b.end());
  return a;
}

// As Open MPI 4.1.4 sets them for rank 1 of mpirun -np 4.
const Map kOpenMpi = {{"OMPI_COMM_WORLD_RANK", "1"},       {"OMPI_COMM_WORLD_SIZE", "4"},
                      {"OMPI_COMM_WORLD_LOCAL_RANK", "1"}, {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"},
                      {"PMIX_NAMESPACE", "2035875841"},    {"PMIX_RANK", "1"}};
const Map kSlurm = {{"SLURM_JOB_ID", "17"},        {"SLURM_STEP_ID", "0"},
                    {"SLURM_NTASKS", "4"},         {"SLURM_STEP_NUM_TASKS", "4"},
                    {"SLURM_STEP_NUM_NODES", "1"}, {"SLURM_PROCID", "2"},
                    {"SLURM_LOCALID", "2"},        {"SLURM_STEP_NODELIST", "node1"}};
const Map kMpich = {{"PMI_RANK", "3"},
                    {"PMI_SIZE", "4"},
                    {"PMI_FD", "9"},
                    {"MPI_LOCALNRANKS", "4"},
                    {"MPI_LOCALRANKID", "3"}};
const Map kTorchrun = {{"RANK", "1"},
                       {"WORLD_SIZE", "2"},
                       {"LOCAL_RANK", "1"},
                       {"LOCAL_WORLD_SIZE", "2"},
                       {"MASTER_ADDR", "node1"},
                       {"MASTER_PORT", "29500"}};

TEST(Environment, TellsWhoStartedTheRanks) {
  const std::optional<Placement> open_mpi = found_in(kOpenMpi);
  ASSERT_TRUE(open_mpi);
  EXPECT_EQ(open_mpi->launcher, "Open MPI");
  EXPECT_EQ(open_mpi->rank, 1);
  EXPECT_EQ(open_mpi->size, 4);
  EXPECT_TRUE(open_mpi->one_host);
  EXPECT_THAT(open_mpi->job, HasSubstr("2035875841"));

  const std::optional<Placement> slurm = found_in(kSlurm);
  ASSERT_TRUE(slurm);
  EXPECT_EQ(slurm->launcher, "Slurm");
  EXPECT_EQ(slurm->rank, 2);
  EXPECT_TRUE(slurm->one_host);
  EXPECT_THAT(slurm->job, HasSubstr("17.0"));

  const std::optional<Placement> mpich = found_in(kMpich);
  ASSERT_TRUE(mpich);
  EXPECT_EQ(mpich->launcher, "MPICH");
  EXPECT_EQ(mpich->rank, 3);
  EXPECT_TRUE(mpich->one_host);
  EXPECT_FALSE(mpich->job.empty());

  const std::optional<Placement> torchrun = found_in(kTorchrun);
  ASSERT_TRUE(torchrun);
  EXPECT_EQ(torchrun->launcher, "torchrun");
  EXPECT_EQ(torchrun->rank, 1);
  EXPECT_TRUE(torchrun->one_host);
  ASSERT_TRUE(torchrun->store);
  EXPECT_EQ(to_string(*torchrun->store), "node1:29500");
  EXPECT_FALSE(found_in(kTorchrun + Map{{"TORCHELASTIC_USE_AGENT_STORE", "True"}})->store);
}

TEST(Environment, OfSeveralHostsSaysSo) {
  EXPECT_FALSE(found_in(Map{{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}} + kOpenMpi)->one_host);
  EXPECT_FALSE(found_in(Map{{"SLURM_STEP_NUM_NODES", "2"}} + kSlurm)->one_host);
  EXPECT_FALSE(found_in(Map{{"MPI_LOCALNRANKS", "2"}} + kMpich)->one_host);
  EXPECT_FALSE(found_in(Map{{"LOCAL_WORLD_SIZE", "1"}} + kTorchrun)->one_host);
}

TEST(Environment, AloneIsWhoNobodyStartedOrAsTheOnlyOne) {
  EXPECT_FALSE(found_in({}));
  // srun -n 1 inside of an allocation of four; a batch script; salloc's shell.
  EXPECT_FALSE(found_in(Map{{"SLURM_STEP_NUM_TASKS", "1"}, {"SLURM_PROCID", "0"}} + kSlurm));
  EXPECT_FALSE(found_in({{"SLURM_JOB_ID", "17"}, {"SLURM_NTASKS", "4"}, {"SLURM_PROCID", "0"}}));
  EXPECT_FALSE(found_in({{"SLURM_JOB_ID", "17"}, {"SLURM_NTASKS", "4"}}));
  EXPECT_FALSE(found_in({{"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "1"}}));
  EXPECT_FALSE(found_in({{"RANK", "5"}}));
}

TEST(Environment, ContradictionsAreNamedAndRefused) {
  EXPECT_THAT(
      [] { found_in(kOpenMpi + kTorchrun); },
      ThrowsMessage<Error>(AllOf(HasSubstr("Open MPI has started this process as rank 1 of 4"),
                                 HasSubstr("torchrun has started this process as rank 1 of "
                                           "2"))));
  EXPECT_THAT([] { found_in(kSlurm + kTorchrun); }, ThrowsMessage<Error>(HasSubstr("Slurm")));
  // The same place said twice is none: by a script, or by srun --mpi=pmi2.
  EXPECT_EQ(
      found_in(kOpenMpi +
               Map{{"RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "1"}})
          ->launcher,
      "Open MPI");
  EXPECT_EQ(found_in(kSlurm + Map{{"PMI_RANK", "2"}, {"PMI_SIZE", "4"}})->launcher, "Slurm");
  // mpirun's daemons were started by srun, one on each of two nodes.
  EXPECT_EQ(
      found_in(
          kOpenMpi +
          Map{{"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_STEP_NUM_NODES", "2"}, {"SLURM_PROCID", "1"}} +
          kSlurm)
          ->launcher,
      "Open MPI");
}

TEST(Environment, WhatMakesNoSenseIsRefused) {
  EXPECT_THAT(
      [] {
        found_in(Map{{"OMPI_COMM_WORLD_RANK", "4"}} + kOpenMpi);
      },
      ThrowsMessage<Error>(HasSubstr("OMPI_COMM_WORLD_RANK = \"4\"")));
  EXPECT_THAT(
      [] {
        found_in({{"RANK", "0"}, {"WORLD_SIZE", "2"}});
      },
      ThrowsMessage<Error>(HasSubstr("MASTER_ADDR")));
  EXPECT_THAT(
      [] {
        found_in(Map{{"MASTER_PORT", "no"}} + kTorchrun);
      },
      ThrowsMessage<Error>(StartsWith("MASTER_PORT = \"no\"")));
}

}  // namespace
}  // namespace concord::net
