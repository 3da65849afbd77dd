// By definition: the reference's product, and its softmax_cross_entropy of that.
#include <vector>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// Outputs of these shapes of another op's reference kernel.
std::vector<Array> run(const Node& node, const std::vector<const Array*>& inputs,
                       const std::vector<Shape>& shapes) {
  std::vector<Array> outputs(shapes.begin(), shapes.end());
  find_kernel(node.op)({node, inputs, outputs});
  return outputs;
}

Array matmul(const std::vector<const Array*>& inputs, std::int64_t transpose_a,
             std::int64_t transpose_b, const Shape& shape) {
  const Attributes attributes = {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}};
  return run({.op = "matmul", .attributes = attributes}, inputs, {shape})[0];
}

// Writes loss and correct; returns the probabilities. Inputs from `first` on: x, w, labels, weight
// and, perhaps, bias.
Array forward(const Call& c, std::size_t first) {
  const Array &x = c.in(first), &w = c.in(first + 1), &labels = c.in(first + 2);
  std::vector<const Array*> factors = {&x, &w};
  if (c.inputs.size() == first + 5) factors.push_back(&c.in(first + 4));
  const Shape shape = {x.shape[0], w.shape[0]};
  const Array logits = matmul(factors, 0, 1, shape);
  const Attributes& attributes = c.node.attributes;
  std::vector<Array> outputs = run({.op = "softmax_cross_entropy", .attributes = attributes},
                                   {&logits, &labels, &c.in(first + 3)}, {{}, shape});
  c.out(0) = outputs[0];
  c.out(1) = run({.op = "count_correct", .attributes = attributes}, {&logits, &labels}, {{}})[0];
  return outputs[1];
}

const RegisterKernel linear_cross_entropy{"linear_cross_entropy",
                                          [](const Call& c) { forward(c, 0); }};

const RegisterKernel linear_cross_entropy_backward{
    "linear_cross_entropy_backward", [](const Call& c) {
      const Array &x = c.in(1), &w = c.in(2);
      const Array p = forward(c, 1);
      const Array dlogits =
          run({.op = "softmax_cross_entropy_backward", .attributes = c.node.attributes},
              {&c.in(0), &p, &c.in(3), &c.in(4)}, {p.shape})[0];
      c.out(2) = matmul({&dlogits, &w}, 0, 0, x.shape);
      c.out(3) = matmul({&dlogits, &x}, 1, 0, w.shape);
      if (c.outputs.size() == 5) {
        const std::int64_t classes = w.shape[0];
        for (std::int64_t i = 0; i < dlogits.shape.elements(); ++i) {
          c.out(4)[i % classes] += dlogits[i];
        }
      }
    }};

}  // namespace
}  // namespace concord::ref
