#include "concord/kernels/kernel_check.h"

#include <algorithm>
#include <cmath>

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

// The node with its operands in the layouts that its rule wishes for.
Signature signature_of(const Graph& graph, const Node& node, const KernelCheck& check,
                       KernelPolicy& policy) {
  Signature signature{node, {}, {}};
  for (const ValueId id : node.inputs) signature.inputs.push_back({graph.type(id), {}});
  for (const ValueId id : node.outputs) signature.outputs.push_back({graph.type(id), {}});
  const KernelRule& rule = cpu::find_kernel_rule(node.op);
  if (rule.layouts != nullptr) {
    std::vector<std::optional<Layout>> offered(node.inputs.size());
    for (std::size_t i = 0; i < node.inputs.size() && check.offered.has_value(); ++i) {
      const bool fits = signature.inputs[i].type.shape == check.inputs[0].shape;
      offered[i] = fits ? *check.offered : Layout();
    }
    const LayoutWish wish = rule.layouts(signature, offered, policy);
    for (std::size_t i = 0; i < node.inputs.size(); ++i)
      signature.inputs[i].layout = wish.inputs[i];
    for (std::size_t o = 0; o < node.outputs.size(); ++o)
      signature.outputs[o].layout = wish.outputs[o];
  }
  return signature;
}

// Negative zeros are zeros as well.
void drop_sign_of_zeros(const Operand& operand, std::byte* data) {
  if (operand.type.dtype != DType::kF32) return;
  auto* values = reinterpret_cast<float*>(data);
  const std::int64_t count = operand.layout.stored_elements(operand.type.shape);
  for (std::int64_t i = 0; i < count; ++i) values[i] = values[i] == 0 ? 0 : values[i];
}

std::string bytes_of(const Operand& operand, const std::byte* data) {
  return {reinterpret_cast<const char*>(data), stored_bytes(operand.type, operand.layout)};
}

struct NodeRun {
  std::vector<ref::Array> outputs;  // row-major
  std::vector<std::string> bytes;   // as the kernel wrote them
  std::string fault;
};

// One output that lies over one input.
struct Overlap {
  std::size_t output, input;
};

NodeRun run_node(const Signature& signature, const std::vector<ref::Array>& values,
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

  NodeRun run;
  for (std::size_t o = 0; o < node.outputs.size(); ++o) {
    const Operand& output = signature.outputs[o];
    std::byte* data = operands[node.inputs.size() + o];
    run.outputs.push_back(load(output, data));
    run.bytes.push_back(bytes_of(output, data));
    drop_sign_of_zeros(output, data);
    const std::string before = bytes_of(output, data);
    OwnedTensor plain(output.type);
    from_layout(output.type, output.layout, data, plain.view().data);
    to_layout(output.type, output.layout, plain.view().data, data);
    if (bytes_of(output, data) != before) {
      run.fault = fmt::format("the padding of output {} is not zero", o);
    }
  }
  return run;
}

NodeRun run_with_threads(int threads, const Signature& signature,
                         const std::vector<ref::Array>& values, KernelPolicy& policy) {
  const int before = compute_threads();
  set_compute_threads(threads);
  NodeRun run = run_node(signature, values, policy);
  set_compute_threads(before);
  return run;
}

// What is wrong with the bits of a run elsewhere than in its values, or "".
std::string fault_of(const NodeRun& run, const Signature& signature,
                     const std::vector<ref::Array>& values, const KernelCheck& check,
                     KernelPolicy& policy) {
  if (!run.fault.empty()) return run.fault;
  if (check.any_threads && run_with_threads(1, signature, values, policy).bytes !=
                               run_with_threads(2, signature, values, policy).bytes) {
    return "the bits depend on the number of threads";
  }
  const KernelRule& rule = cpu::find_kernel_rule(signature.node.op);
  for (std::size_t o = 0; o < signature.outputs.size() && rule.in_place != nullptr; ++o) {
    for (std::size_t i = 0; i < signature.inputs.size(); ++i) {
      if (!rule.in_place(signature, o, i)) continue;
      if (run_node(signature, values, policy, Overlap{o, i}).bytes != run.bytes) {
        return fmt::format("output {} has other bits when it lies over input {}", o, i);
      }
    }
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
    const Signature signature = signature_of(graph, node, check, policy);
    const NodeRun run = run_node(signature, values, policy);
    const std::string fault = fault_of(run, signature, values, check, policy);
    if (!fault.empty()) return fmt::format("{}: {}", to_string(graph, node), fault);
    const std::vector<ref::Array>& outputs = run.outputs;
    double worst = check.tolerance;
    std::string report;
    for (std::size_t o = 0; o < outputs.size(); ++o) {
      const ref::Array& expected = values[static_cast<std::size_t>(node.outputs[o])];
      for (std::size_t i = 0; i < expected.data.size(); ++i) {
        const double actual = outputs[o].data[i];
        if (actual == expected.data[i] || (std::isnan(actual) && std::isnan(expected.data[i]))) {
          continue;
        }
        const double error =
            std::abs(actual - expected.data[i]) / std::max(1.0, std::abs(expected.data[i]));
        if (error <= worst) continue;
        worst = std::isnan(error) ? INFINITY : error;
        report = fmt::format("{}: output {} element {} is {}; the reference says {}",
                             to_string(graph, node), o, i, actual, expected.data[i]);
      }
    }
    if (!report.empty()) return report;
  }
  return "";
}

}  // namespace concord
