// For tests and fuzzers alone: the parsers of what other processes and the environment say, each as
// one function that takes arbitrary bytes.
#pragma once

#include <map>
#include <sstream>

#include "concord/base/parser_target.h"
#include "concord/net/agent.h"
#include "concord/net/environment.h"
#include "concord/net/frames.h"
#include "concord/net/job_file.h"
#include "concord/net/launch.h"
#include "concord/net/member.h"
#include "concord/net/store_request.h"

namespace concord::net {

// What is accepted is written, and read again.
inline ParserTarget store_request_target() {
  return {"store request",
          {StoreRequest{'s', "key", "value"}.bytes(), StoreRequest{'g', "key", ""}.bytes(),
           StoreRequest{'a', "key", std::string(8, '\1')}.bytes()},
          [](std::string_view bytes) {
            const auto request = StoreRequest::of(bytes);
            if (!request) fail("no request");
            CONCORD_CHECK(request->bytes() == bytes);
          }};
}

inline ParserTarget frames_target() {
  const std::string job = AgentJob{.directory = "/tmp",
                                   .command = {"concord", "train"},
                                   .first = 1,
                                   .count = 2,
                                   .size = 4,
                                   .store = {{"10.0.0.1", 4711}},
                                   .host = "a"}
                              .to_json();
  const auto frame = [](char kind, const std::string& text) {
    const std::int32_t rank = 3, size = static_cast<std::int32_t>(text.size());
    std::string bytes(1, kind);
    bytes.append(reinterpret_cast<const char*>(&rank), sizeof rank);
    return bytes.append(reinterpret_cast<const char*>(&size), sizeof size) + text;
  };
  return {"frames",
          {frame('j', job), frame('o', "said") + frame('e', "256 process 7")},
          [](std::string_view bytes) {
            FrameReader reader;
            reader.add(bytes.substr(0, bytes.size() / 2));
            reader.take_line_after("CONCORD AGENT ");
            reader.add(bytes.substr(bytes.size() / 2));
            while (const auto frame = reader.take()) {
              if (frame->kind == Frame::Kind::kJob) AgentJob::from_json(frame->bytes).to_json();
            }
          }};
}

inline ParserTarget job_file_target() {
  return {"job file",
          {"concord job 1\nboot\n4711 99\n" + Secret().to_hex() + "\n10.0.0.1:4711,[::1]:4712\n"},
          [](std::string_view bytes) {
            const auto entry = parse_job_file(std::string(bytes), "input");
            if (!entry) fail("no job file");
            parse_endpoints(to_string(entry->store), "again");
          }};
}

inline ParserTarget hosts_target() {
  return {"hosts", {"a:2,b:2", "[::1]:3,10.0.0.1", "node1"}, [](std::string_view bytes) {
            for (const HostRanks& host : parse_hosts(std::string(bytes))) {
              CONCORD_CHECK(!host.host.empty() && host.ranks >= 1 && host.ranks <= 256);
            }
          }};
}

// Lines of NAME=VALUE.
inline ParserTarget environment_target() {
  return {"environment",
          {"OMPI_COMM_WORLD_RANK=1\nOMPI_COMM_WORLD_SIZE=4\nOMPI_COMM_WORLD_LOCAL_SIZE=4\n",
           "SLURM_PROCID=2\nSLURM_STEP_NUM_TASKS=4\nSLURM_STEP_NUM_NODES=1\nSLURM_JOB_ID=7\n",
           "PMI_RANK=0\nPMI_SIZE=2\nMPI_LOCALNRANKS=2\n",
           "RANK=1\nWORLD_SIZE=2\nMASTER_ADDR=::1\nMASTER_PORT=4711\nLOCAL_WORLD_SIZE=2\n"},
          [](std::string_view bytes) {
            std::map<std::string, std::string, std::less<>> variables;
            std::istringstream lines{std::string(bytes)};
            for (std::string line; std::getline(lines, line);) {
              const std::size_t end = std::min(line.find('='), line.size());
              variables[line.substr(0, end)] = line.substr(std::min(end + 1, line.size()));
            }
            const auto placement = find_placement([&](const char* name) {
              const auto found = variables.find(name);
              return found == variables.end() ? std::nullopt : std::optional(found->second);
            });
            if (!placement) fail("alone");
            CONCORD_CHECK(placement->rank >= 0 && placement->rank < placement->size);
          }};
}

}  // namespace concord::net
