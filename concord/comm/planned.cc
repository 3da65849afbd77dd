#include "concord/comm/planned.h"

#include "concord/base/error.h"

namespace concord::comm {

Result Planned::execute(const Record& record, bool) {
  const Operation& op = record.operation;
  using Kind = Operation::Kind;
  CONCORD_CHECK(
      op.kind == Kind::kBarrier || op.kind == Kind::kAgreement || op.kind == Kind::kBroadcast,
      "{} in a job that is only planned", name_of(op.kind));
  return {.flags = op.flags};
}

std::unique_ptr<Communicator> Planned::make_group(const GroupOptions& options) {
  return std::make_unique<Planned>(options.rank, static_cast<int>(options.group.members.size()),
                                   has_common_memory_);
}

}  // namespace concord::comm
