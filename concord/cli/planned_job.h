// A job of several ranks that is looked at before it is run: compiled for rank 0, with no others.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "concord/comm/planned.h"
#include "concord/train/job.h"

namespace concord::cli {

class PlannedJob {
 public:
  // `ranks`: 0 for as many as parallel.mesh has. Throws Error where they do not fit each other.
  PlannedJob(const Config& config, int ranks);
  const train::Job& job() const { return job_; }
  train::Job& job() { return job_; }

 private:
  comm::Planned ranks_;
  train::Job job_;
};

// The option --ranks of commands that look at a plan.
void add_planned_ranks(CLI::App& command, int& ranks);

// What rank 0 sends in a step, collective by collective; those that a microbatch has, or comes
// with, count as often as the rank computes one.
nlohmann::json describe_collectives(const train::Engine& engine);
void print_collectives(const nlohmann::json& collectives);

}  // namespace concord::cli
