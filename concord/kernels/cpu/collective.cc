// The collectives for which a rank needs no other. They work on bytes.
#include "concord/ops/collective.h"

#include <cstring>

#include "concord/base/parallel.h"
#include "concord/graph/shard_copies.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

class Shard final : public Kernel {
 public:
  explicit Shard(const Signature& s)
      : copies_(shard_copies(s.inputs[0].type, ops::split_of(s.node),
                             static_cast<int>(s.node.attributes.integer("ranks")),
                             static_cast<int>(s.node.attributes.integer("index")))) {}
  void run(std::span<std::byte* const> operands) override {
    for (const BlockCopy& copy : copies_) copy.run(operands[0], operands[1]);
  }

 private:
  std::vector<BlockCopy> copies_;  // one of each section
};

const RegisterKernelRule shard{{
    .op = std::string(ops::kShard),
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<Shard>(s);
    },
}};

class FirstSummand final : public Kernel {
 public:
  explicit FirstSummand(const Signature& s)
      : bytes_(static_cast<std::int64_t>(s.outputs[0].type.bytes())),
        is_first_(s.node.attributes.integer("index") == 0) {}
  void run(std::span<std::byte* const> operands) override {
    if (is_first_ && operands[0] == operands[1]) return;
    parallel_for(bytes_, 4 * kGrain, [&](std::int64_t begin, std::int64_t end) {
      const auto count = static_cast<std::size_t>(end - begin);
      if (is_first_) {
        std::memcpy(operands[1] + begin, operands[0] + begin, count);
      } else {
        std::memset(operands[1] + begin, 0, count);
      }
    });
  }

 private:
  std::int64_t bytes_;
  bool is_first_;
};

const RegisterKernelRule first_summand{{
    .op = std::string(ops::kFirstSummand),
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<FirstSummand>(s);
    },
    .in_place = element_wise_in_place,
}};

}  // namespace
}  // namespace concord::cpu
