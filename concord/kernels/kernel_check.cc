#include "concord/kernels/kernel_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/base/philox.h"
#include "concord/graph/printer.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/ops/arithmetic.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

void store(const ref::Array& array, const Operand& operand, std::byte* destination) {
  OwnedTensor plain(operand.type);
  for (std::size_t i = 0; i < array.data.size(); ++i) {
    switch (operand.type.dtype) {
      case DType::kF32:
        plain.as<float>()[i] = static_cast<float>(array.data[i]);
        break;
      case DType::kF64:
        plain.as<double>()[i] = array.data[i];
        break;
      case DType::kI32:
        plain.as<std::int32_t>()[i] = static_cast<std::int32_t>(array.data[i]);
        break;
      case DType::kI64:
        plain.as<std::int64_t>()[i] = static_cast<std::int64_t>(array.data[i]);
        break;
      case DType::kU8:
        plain.as<std::uint8_t>()[i] = static_cast<std::uint8_t>(array.data[i]);
        break;
      case DType::kBF16:
        reinterpret_cast<std::uint16_t*>(plain.view().data)[i] =
            float_to_bf16(static_cast<float>(array.data[i]));
        break;
    }
  }
  to_layout(operand.type, operand.layout, plain.view().data, destination);
}

ref::Array load(const Operand& operand, const std::byte* source) {
  OwnedTensor plain(operand.type);
  from_layout(operand.type, operand.layout, source, plain.view().data);
  ref::Array array(operand.type.shape);
  for (std::size_t i = 0; i < array.data.size(); ++i) {
    switch (operand.type.dtype) {
      case DType::kF32:
        array.data[i] = plain.as<float>()[i];
        break;
      case DType::kF64:
        array.data[i] = plain.as<double>()[i];
        break;
      case DType::kI32:
        array.data[i] = plain.as<std::int32_t>()[i];
        break;
      case DType::kI64:
        array.data[i] = static_cast<double>(plain.as<std::int64_t>()[i]);
        break;
      case DType::kU8:
        array.data[i] = plain.as<std::uint8_t>()[i];
        break;
      case DType::kBF16:
        array.data[i] = bf16_to_float(reinterpret_cast<const std::uint16_t*>(plain.view().data)[i]);
        break;
    }
  }
  return array;
}

// The node with its operands in the layouts that its rule wishes for when its inputs come in those
// offered.
Signature signature_of(const Graph& graph, const Node& node,
                       std::span<const std::optional<Layout>> offered, KernelPolicy& policy) {
  Signature signature{node, {}, {}};
  for (const ValueId id : node.inputs) signature.inputs.push_back({graph.type(id), {}});
  for (const ValueId id : node.outputs) signature.outputs.push_back({graph.type(id), {}});
  const KernelRule& rule = cpu::find_kernel_rule(node.op);
  if (rule.layouts == nullptr) return signature;
  const LayoutWish wish = rule.layouts(signature, offered, policy);
  for (std::size_t i = 0; i < node.inputs.size(); ++i) signature.inputs[i].layout = wish.inputs[i];
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    signature.outputs[o].layout = wish.outputs[o];
  }
  return signature;
}

bool same_layouts(const Signature& a, const Signature& b) {
  const auto same = [](const Operand& x, const Operand& y) { return x.layout == y.layout; };
  return std::ranges::equal(a.inputs, b.inputs, same) &&
         std::ranges::equal(a.outputs, b.outputs, same);
}

// One output that lies over one input.
struct Overlap {
  std::size_t output, input;
};

// The outputs, as the kernel wrote them.
using Outputs = std::vector<std::string>;

Outputs run_node(const Signature& signature, const std::vector<ref::Array>& values,
                 KernelPolicy& policy, std::optional<Overlap> overlap = std::nullopt) {
  const Node& node = signature.node;
  const std::unique_ptr<Kernel> kernel = cpu::find_kernel_rule(node.op).make(signature, policy);
  std::vector<Buffer> buffers;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    buffers.emplace_back(stored_bytes(signature.inputs[i].type, signature.inputs[i].layout));
    store(values[static_cast<std::size_t>(node.inputs[i])], signature.inputs[i],
          buffers.back().data());
  }
  for (const Operand& output : signature.outputs) {
    buffers.emplace_back(stored_bytes(output.type, output.layout));
    std::fill_n(buffers.back().data(), buffers.back().bytes(),
                std::byte{0xff});  // NaN: must be written
  }
  if (kernel->scratchpad_bytes() > 0) buffers.emplace_back(kernel->scratchpad_bytes());
  std::vector<std::byte*> operands;
  for (const Buffer& buffer : buffers) operands.push_back(buffer.data());
  if (overlap) operands[node.inputs.size() + overlap->output] = operands[overlap->input];
  kernel->run(operands);

  Outputs outputs;
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const Operand& output = signature.outputs[o];
    outputs.emplace_back(reinterpret_cast<const char*>(operands[node.inputs.size() + o]),
                         stored_bytes(output.type, output.layout));
  }
  return outputs;
}

std::string bytes_of_input_0(const Signature& signature, const std::vector<ref::Array>& values) {
  const Operand& input = signature.inputs[0];
  Buffer buffer(stored_bytes(input.type, input.layout));
  store(values[static_cast<std::size_t>(signature.node.inputs[0])], input, buffer.data());
  return {reinterpret_cast<const char*>(buffer.data()), buffer.bytes()};
}

Outputs run_with_threads(int threads, const Signature& signature,
                         const std::vector<ref::Array>& values, KernelPolicy& policy) {
  const int before = compute_threads();
  set_compute_threads(threads);
  Outputs outputs = run_node(signature, values, policy);
  set_compute_threads(before);
  return outputs;
}

// Whether padding holds zeros: storing the elements anew, around zeros, changes nothing. A negative
// zero is a zero as well.
bool padding_is_zero(const Operand& operand, const ref::Array& elements, const std::string& bytes) {
  if (!operand.layout.has_padding(operand.type.shape)) return true;
  Buffer again(bytes.size());
  store(elements, operand, again.data());
  if (operand.type.dtype != DType::kF32) {
    return std::equal(bytes.begin(), bytes.end(), reinterpret_cast<const char*>(again.data()));
  }
  const auto* given = reinterpret_cast<const float*>(bytes.data());
  const auto* expected = reinterpret_cast<const float*>(again.data());
  return std::equal(given, given + bytes.size() / sizeof(float), expected,
                    [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); });
}

// What is wrong with an output, or "".
std::string compare(const Operand& operand, const std::string& bytes, const ref::Array& expected,
                    double tolerance) {
  const ref::Array given = load(operand, reinterpret_cast<const std::byte*>(bytes.data()));
  std::string report;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const double a = given.data[i], b = expected.data[i];
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    const double error = std::abs(a - b) / std::max(1.0, std::abs(b));
    if (error <= tolerance) continue;
    tolerance = std::isnan(error) ? INFINITY : error;
    report = fmt::format("element {} is {}; the reference says {}", i, a, b);
  }
  if (report.empty() && !padding_is_zero(operand, given, bytes)) return "the padding is not zero";
  return report;
}

// What is wrong with the node, or "".
std::string check_node(const Signature& signature, const std::vector<ref::Array>& values,
                       const KernelCheck& check, KernelPolicy& policy) {
  const Outputs outputs = run_node(signature, values, policy);
  for (std::size_t o = 0; o < outputs.size(); ++o) {
    const Operand& operand = signature.outputs[o];
    const std::string report =
        compare(operand, outputs[o], values[static_cast<std::size_t>(signature.node.outputs[o])],
                check.tolerance);
    if (report.empty()) continue;
    return fmt::format("output {} in layout {}: {}", o, to_string(operand.layout), report);
  }
  if (check.any_threads && run_with_threads(1, signature, values, policy) !=
                               run_with_threads(2, signature, values, policy)) {
    return "the bits depend on the number of threads";
  }
  const KernelRule& rule = cpu::find_kernel_rule(signature.node.op);
  if (rule.view && outputs[0] != bytes_of_input_0(signature, values)) {
    return "the output of a view has other bytes than its input";
  }
  for (std::size_t o = 0; o < signature.outputs.size() && rule.in_place != nullptr; ++o) {
    for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
      if (!rule.in_place(signature, o, i)) continue;
      if (run_node(signature, values, policy, Overlap{o, i}) != outputs) {
        return fmt::format("output {} has other bits when it lies over input {}", o, i);
      }
    }
  }
  return "";
}

// The layouts in which the inputs of a node are offered, one after the other.
std::vector<std::vector<std::optional<Layout>>> offers(const Graph& graph, const Node& node,
                                                       const KernelCheck& check) {
  const std::size_t count = node.inputs.size();
  std::vector<std::vector<std::optional<Layout>>> result = {
      std::vector<std::optional<Layout>>(count),
      std::vector<std::optional<Layout>>(count, Layout())};
  if (!check.offered) return result;
  result.push_back(result[1]);
  for (std::size_t i = 0; i < count; ++i) {
    if (graph.type(node.inputs[i]).shape == check.inputs[0].shape) result[2][i] = check.offered;
  }
  return result;
}

}  // namespace

std::string check_kernels(const KernelCheck& check) {
  Graph graph;
  GraphBuilder builder(graph);
  ref::Bindings bindings = check.fixed;
  std::vector<ValueId> inputs, differentiable;
  const auto draw = [&](const std::string& name, const Shape& shape, std::uint32_t stream) {
    if (bindings.contains(name)) return;
    ref::Array array(shape);
    const RandomStream random{.seed = check.seed, .stream = stream};
    for (std::size_t i = 0; i < array.data.size(); ++i) {
      array.data[i] = normal01(random.bits(2 * i), random.bits(2 * i + 1));
    }
    bindings[name] = std::move(array);
  };
  for (std::size_t i = 0; i < check.inputs.size(); ++i) {
    const std::string name = fmt::format("x{}", i);
    inputs.push_back(builder.input(name, check.inputs[i]));
    if (is_floating(check.inputs[i].dtype)) differentiable.push_back(inputs.back());
    draw(name, check.inputs[i].shape, static_cast<std::uint32_t>(i));
  }
  check.build(builder, inputs);
  const std::size_t loss_begin = graph.nodes.size();
  std::size_t loss_end = loss_begin;
  if (check.backward) {
    const ValueId output = graph.nodes.back().outputs[0];
    const ValueId weights = builder.input("output_weights", builder.type(output));
    draw("output_weights", builder.shape(output), 1000);
    const ValueId loss = ops::sum_to_shape(builder, ops::mul(builder, output, weights), Shape{});
    loss_end = graph.nodes.size();
    backpropagate(builder, loss, differentiable);
  }

  const std::vector<ref::Array> values = ref::evaluate(graph, bindings);
  KernelPolicy policy = check.policy;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (n >= loss_begin && n < loss_end) continue;
    const Node& node = graph.nodes[n];
    std::optional<Signature> previous;
    for (const auto& offered : offers(graph, node, check)) {
      Signature signature = signature_of(graph, node, offered, policy);
      if (previous && same_layouts(*previous, signature)) continue;
      const std::string report = check_node(signature, values, check, policy);
      if (!report.empty()) return fmt::format("{}: {}", to_string(graph, node), report);
      previous = std::move(signature);
    }
  }
  return "";
}

}  // namespace concord
