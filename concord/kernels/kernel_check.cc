#include "concord/kernels/kernel_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
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

// What is wrong with an output, or "".
std::string compare(const Operand& operand, const Buffer& stored, const ref::Array& expected,
                    double tolerance) {
  const ref::Array given = load(operand, stored.data());
  std::string report;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const double error =
        std::abs(given.data[i] - expected.data[i]) / std::max(1.0, std::abs(expected.data[i]));
    if (error <= tolerance) continue;
    tolerance = std::isnan(error) ? INFINITY : error;
    report =
        fmt::format("element {} is {}; the reference says {}", i, given.data[i], expected.data[i]);
  }
  if (!report.empty() || !operand.layout.has_padding(operand.type.shape)) return report;
  // The padding of a layout holds zeros: storing the elements anew, around zeros, changes nothing.
  Buffer again(stored.bytes());
  store(given, operand, again.data());
  if (std::equal(again.data(), again.data() + again.bytes(), stored.data())) return "";
  return "the padding is not zero";
}

// Runs one node with its inputs given in these layouts and returns what is wrong with its outputs,
// or "". `previous`: the signature of the last run, to which this one's is written; the same one is
// not run again.
std::string run_node(const Graph& graph, const Node& node, const std::vector<ref::Array>& values,
                     const std::vector<std::optional<Layout>>& given, KernelPolicy& policy,
                     double tolerance, std::optional<LayoutWish>& previous) {
  Signature signature{node, {}, {}};
  for (const ValueId id : node.inputs) signature.inputs.push_back({graph.type(id), {}});
  for (const ValueId id : node.outputs) signature.outputs.push_back({graph.type(id), {}});
  const KernelRule& rule = cpu::find_kernel_rule(node.op);
  LayoutWish wish{std::vector<Layout>(node.inputs.size()),
                  std::vector<Layout>(node.outputs.size())};
  if (rule.layouts != nullptr) wish = rule.layouts(signature, given, policy);
  if (previous && previous->inputs == wish.inputs && previous->outputs == wish.outputs) return "";
  for (std::size_t i = 0; i < node.inputs.size(); ++i) signature.inputs[i].layout = wish.inputs[i];
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    signature.outputs[o].layout = wish.outputs[o];
  }
  previous = std::move(wish);
  const std::unique_ptr<Kernel> kernel = rule.make(signature, policy);

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
  kernel->run(operands);

  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const Operand& operand = signature.outputs[o];
    const std::string report =
        compare(operand, buffers[node.inputs.size() + o],
                values[static_cast<std::size_t>(node.outputs[o])], tolerance);
    if (report.empty()) continue;
    return fmt::format("{}: output {} in layout {}: {}", to_string(graph, node), o,
                       to_string(operand.layout), report);
  }
  return "";
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
  std::set<std::string> not_tested = {"constant", "mul", "sum_to_shape", "broadcast_to"};
  for (const Node& node : graph.nodes) not_tested.erase(node.op);
  if (check.backward) {
    const ValueId output = graph.nodes.back().outputs[0];
    const ValueId weights = builder.input("output_weights", builder.type(output));
    draw("output_weights", builder.shape(output), 1000);
    const ValueId loss = ops::sum_to_shape(builder, ops::mul(builder, output, weights), Shape{});
    backpropagate(builder, loss, differentiable);
  }

  const std::vector<ref::Array> values = ref::evaluate(graph, bindings);
  KernelPolicy policy = check.policy;
  for (const Node& node : graph.nodes) {
    if (not_tested.contains(node.op)) continue;
    std::optional<LayoutWish> previous;
    for (const std::optional<Layout>& each : {std::optional<Layout>(), std::optional(Layout())}) {
      const std::vector<std::optional<Layout>> given(node.inputs.size(), each);
      const std::string report =
          run_node(graph, node, values, given, policy, check.tolerance, previous);
      if (!report.empty()) return report;
    }
  }
  return "";
}

}  // namespace concord
