#include "concord/kernels/cpu/registry.h"

#include "concord/base/error.h"

namespace concord::cpu {
namespace {

std::map<std::string, KernelRule, std::less<>>& registry() {
  static std::map<std::string, KernelRule, std::less<>> rules;
  return rules;
}

}  // namespace

RegisterKernelRule::RegisterKernelRule(KernelRule rule) {
  const std::string op = rule.op;
  const bool inserted = registry().emplace(op, std::move(rule)).second;
  CONCORD_CHECK(inserted, "the CPU kernel of \"{}\" is defined twice", op);
}

const KernelRule& find_kernel_rule(std::string_view op) {
  const auto found = registry().find(op);
  if (found == registry().end()) fail("op \"{}\" cannot run on the CPU", op);
  return found->second;
}

LayoutWish same_layout(const Signature& signature, std::span<const std::optional<Layout>> inputs,
                       KernelPolicy&) {
  Layout common;
  const Shape& shape = signature.outputs[0].type.shape;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].has_value() && signature.inputs[i].type.shape == shape) {
      common = *inputs[i];
      break;
    }
  }
  return {std::vector<Layout>(signature.inputs.size(), common),
          std::vector<Layout>(signature.outputs.size(), common)};
}

LayoutWish same_layout_unpadded(const Signature& signature,
                                std::span<const std::optional<Layout>> inputs,
                                KernelPolicy& policy) {
  LayoutWish wish = same_layout(signature, inputs, policy);
  if (!wish.outputs[0].has_padding(signature.outputs[0].type.shape)) return wish;
  return {std::vector<Layout>(signature.inputs.size()),
          std::vector<Layout>(signature.outputs.size())};
}

bool element_wise_in_place(const Signature& signature, std::size_t o, std::size_t i) {
  return signature.inputs[i].type == signature.outputs[o].type &&
         signature.inputs[i].layout == signature.outputs[o].layout;
}

}  // namespace concord::cpu
