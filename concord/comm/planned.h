// Planned: a rank of a job that is only looked at, so that a plan needs no network: programs are
// compiled for it and memory is asked for, and nothing is ever run. What all ranks do together
// before that comes out as if the others had said what this one says.
#pragma once

#include <memory>

#include "concord/comm/communicator.h"

namespace concord::comm {

class Planned final : public Communicator {
 public:
  // `has_common_memory`: as ranks of one machine have.
  Planned(int rank, int size, bool has_common_memory)
      : Communicator(rank, size), has_common_memory_(has_common_memory) {}
  ~Planned() override { stop(); }

  bool has_common_memory() const override { return has_common_memory_; }
  void abort(std::string_view) override {}

 private:
  Result execute(const Record& record, bool patient) override;
  std::byte* make_common(std::size_t bytes) override { return make_shared(bytes); }
  std::unique_ptr<Communicator> make_group(const GroupOptions& options) override;

  bool has_common_memory_;
};

}  // namespace concord::comm
