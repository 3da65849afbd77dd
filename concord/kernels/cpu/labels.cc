#include "concord/ops/labels.h"

#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"

namespace concord::cpu {
namespace {

// A pass over a few thousand integers: not worth a second thread.
class LabelledRows final : public Kernel {
 public:
  explicit LabelledRows(const Signature& s)
      : samples_(s.inputs[0].type.shape[0]),
        length_(s.inputs[0].type.shape[1]),
        count_(s.node.attributes.integer("count")),
        before_(s.node.attributes.has("first_sample")
                    ? s.node.attributes.integer("first_sample") * length_
                    : 0) {}

  void run(std::span<std::byte* const> operands) override {
    const auto* labels = as<std::int32_t>(operands[0]);
    auto* rows = as<std::int32_t>(operands[1]);
    auto* found_labels = as<std::int32_t>(operands[2]);
    for (std::int64_t n = 0; n < samples_; ++n) {
      const std::int64_t first = n * length_, full = (n + 1) * count_;
      std::int64_t found = n * count_;
      for (std::int64_t row = first; row < first + length_ && found < full; ++row) {
        if (labels[row] < 0) continue;
        rows[found] = static_cast<std::int32_t>(before_ + row);
        found_labels[found++] = labels[row];
      }
      for (; found < full; ++found) {
        rows[found] = static_cast<std::int32_t>(before_ + first);
        found_labels[found] = ops::kNoLabel;
      }
    }
  }

 private:
  std::int64_t samples_, length_, count_;
  std::int64_t before_;  // rows of samples that others have
};

const RegisterKernelRule labelled_rows{{
    .op = "labelled_rows",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      return std::make_unique<LabelledRows>(s);
    },
}};

}  // namespace
}  // namespace concord::cpu
