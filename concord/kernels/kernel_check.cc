#include "concord/kernels/kernel_check.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>

#include "concord/autodiff/backpropagate.h"
#include "concord/base/error.h"
#include "concord/base/parallel.h"
#include "concord/base/philox.h"
#include "concord/graph/op.h"
#include "concord/graph/printer.h"
#include "concord/kernels/cpu/instruction_set.h"
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
        plain.as<BF16>()[i] = BF16(static_cast<float>(array.data[i]));
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
        array.data[i] = static_cast<float>(plain.as<BF16>()[i]);
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
  const auto is_same = [&]<typename T>(T) {
    const auto* given = reinterpret_cast<const T*>(bytes.data());
    const auto* expected = reinterpret_cast<const T*>(again.data());
    return std::equal(given, given + bytes.size() / sizeof(T), expected, [](T x, T y) {
      const auto a = static_cast<float>(x), b = static_cast<float>(y);
      return a == b || (std::isnan(a) && std::isnan(b));
    });
  };
  if (operand.type.dtype == DType::kF32) return is_same(float());
  if (operand.type.dtype == DType::kBF16) return is_same(BF16());
  return std::equal(bytes.begin(), bytes.end(), reinterpret_cast<const char*>(again.data()));
}

// The distance to the next number of this type where it is coarse, else 0.
double spacing(DType dtype, double x) {
  if (dtype != DType::kBF16 || x == 0 || !std::isfinite(x)) return 0;
  return std::ldexp(1.0, std::ilogb(x) - 7);
}

// What is wrong with an output, or "".
std::string compare(const Operand& operand, const std::string& bytes, const ref::Array& expected,
                    double tolerance) {
  const ref::Array given = load(operand, reinterpret_cast<const std::byte*>(bytes.data()));
  std::string report;
  for (std::size_t i = 0; i < expected.data.size(); ++i) {
    const double a = given.data[i], b = expected.data[i];
    if (a == b || (std::isnan(a) && std::isnan(b))) continue;
    const double allowed = spacing(operand.type.dtype, b);
    const double error = (std::abs(a - b) - allowed) / std::max(1.0, std::abs(b));
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

// What is wrong with a node of a graph whose values are these, or "".
std::string check_in_layouts(const Graph& graph, const Node& node,
                             const std::vector<ref::Array>& values, const KernelCheck& check,
                             KernelPolicy& policy) {
  std::optional<Signature> previous;
  for (const auto& offered : offers(graph, node, check)) {
    Signature signature = signature_of(graph, node, offered, policy);
    if (previous && same_layouts(*previous, signature)) continue;
    const std::string report = check_node(signature, values, check, policy);
    if (!report.empty()) return fmt::format("{}: {}", to_string(graph, node), report);
    previous = std::move(signature);
  }
  return "";
}

// The node in bf16, in a graph of its own; nullopt where its op has no such form.
std::optional<Graph> alone_in_bf16(const Graph& graph, const Node& node, bool f32_output) {
  const Bf16Form& form = find_op(node.op).bf16;
  if (f32_output && !form.chooses_output) return std::nullopt;
  Graph alone;
  GraphBuilder builder(alone);
  std::vector<ValueId> inputs;
  bool any = false;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    TensorType type = graph.type(node.inputs[i]);
    if (form.use != Bf16Form::Use::kNever && form.takes(i) && type.dtype == DType::kF32) {
      type.dtype = DType::kBF16;
      any = true;
    }
    inputs.push_back(builder.input(fmt::format("{}", i), type));
  }
  if (!any) return std::nullopt;
  Attributes attributes = node.attributes;
  if (f32_output) attributes.set("output", std::string(to_string(DType::kF32)));
  builder.node(node.op, inputs, std::move(attributes));
  return alone;
}

// The same for the node's forms in bf16.
std::string check_in_bf16(const Graph& graph, const Node& node,
                          const std::vector<ref::Array>& values, const KernelCheck& check,
                          KernelPolicy& policy) {
  for (const bool f32_output : {false, true}) {
    const std::optional<Graph> alone = alone_in_bf16(graph, node, f32_output);
    if (!alone) continue;
    ref::Bindings bindings;
    for (std::size_t i = 0; i < node.inputs.size(); ++i) {
      bindings[fmt::format("{}", i)] = values[static_cast<std::size_t>(node.inputs[i])];
    }
    const std::string report =
        check_in_layouts(*alone, alone->nodes[0], ref::evaluate(*alone, bindings), check, policy);
    if (!report.empty()) return report;
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
    std::string report = check_in_layouts(graph, node, values, check, policy);
    if (report.empty() && cpu::has_bf16()) {
      KernelCheck in_bf16 = check;
      if (check.bf16_tolerance > 0) in_bf16.tolerance = check.bf16_tolerance;
      report = check_in_bf16(graph, node, values, in_bf16, policy);
    }
    if (!report.empty()) return report;
  }
  return "";
}

}  // namespace concord
