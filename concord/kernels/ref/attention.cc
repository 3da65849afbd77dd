#include "concord/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "concord/kernels/ref/reference.h"
#include "concord/ops/shape_ops.h"

namespace concord::ref {
namespace {

// Sizes and places of an attention node whose q, k and v are inputs from `first_operand` on.
struct Problem {
  const Call& call;
  std::size_t first_operand;
  ops::AttentionSizes sizes;
  bool causal;
  std::int64_t keys_before;  // causal: those that every query sees, before its own position
  double scale;

  // The operands are the next `count` inputs.
  Problem(const Call& c, std::size_t first, std::size_t count)
      : call(c),
        first_operand(first),
        sizes(sizes_of(c, first, count)),
        causal(c.node.attributes.integer("causal") != 0),
        keys_before(sizes.keys - sizes.queries),
        scale(c.node.attributes.real("scale")) {}

  static ops::AttentionSizes sizes_of(const Call& c, std::size_t first, std::size_t count) {
    std::vector<TensorType> types;
    for (const Array* input : c.inputs.subspan(first, count)) {
      types.push_back({DType::kF64, input->shape});
    }
    return ops::attention_sizes(c.node, types);
  }

  // Where element 0 of a head of q (which = 0), k (1) or v (2) stands in its operand.
  std::int64_t place(std::size_t which, std::int64_t n, std::int64_t position,
                     std::int64_t head) const {
    const ops::AttentionSizes::Heads& at = sizes.qkv[which];
    const std::int64_t length = which == 0 ? sizes.queries : sizes.keys;
    const std::int64_t own = which == 0 ? head : sizes.group_of(head);
    return ((n * length + position) * at.stored_heads + at.first_head + own) * sizes.head_size;
  }
  const double* operand(std::size_t which, std::int64_t n, std::int64_t position,
                        std::int64_t head) const {
    return call.in(first_operand + sizes.qkv[which].index).data.data() +
           place(which, n, position, head);
  }
  double* gradient(std::size_t which, std::int64_t n, std::int64_t position,
                   std::int64_t head) const {
    return call.out(sizes.qkv[which].index).data.data() + place(which, n, position, head);
  }
  std::int64_t place_of_o(std::int64_t n, std::int64_t t, std::int64_t h) const {
    return ((n * sizes.queries + t) * sizes.heads + h) * sizes.head_size;
  }
  std::int64_t place_of_logsumexp(std::int64_t n, std::int64_t t, std::int64_t h) const {
    return (n * sizes.heads + h) * sizes.queries + t;
  }
  std::int64_t keys_seen(std::int64_t t) const { return causal ? keys_before + t + 1 : sizes.keys; }
  double dot(const double* a, const double* b) const {
    double sum = 0;
    for (std::int64_t d = 0; d < sizes.head_size; ++d) sum += a[d] * b[d];
    return sum;
  }
  double score(std::int64_t n, std::int64_t t, std::int64_t u, std::int64_t h) const {
    return scale * dot(operand(0, n, t, h), operand(1, n, u, h));
  }
  // to += factor * from
  void add(double factor, const double* from, double* to) const {
    for (std::int64_t d = 0; d < sizes.head_size; ++d) to[d] += factor * from[d];
  }
  // Calls visit(n, t, h) for every query.
  template <typename Visit>
  void for_each_query(Visit visit) const {
    for (std::int64_t n = 0; n < sizes.samples; ++n) {
      for (std::int64_t h = 0; h < sizes.heads; ++h) {
        for (std::int64_t t = 0; t < sizes.queries; ++t) visit(n, t, h);
      }
    }
  }
};

// o, and the logarithm of each query's sum, for which visit(n, t, h, logsumexp) is called.
template <typename Visit>
void attend(const Problem& p, Array& output, Visit visit) {
  p.for_each_query([&](auto n, auto t, auto h) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (std::int64_t u = 0; u < p.keys_seen(t); ++u) {
      largest = std::max(largest, p.score(n, t, u, h));
    }
    for (std::int64_t u = 0; u < p.keys_seen(t); ++u) {
      sum += std::exp(p.score(n, t, u, h) - largest);
    }
    const double logsumexp = largest + std::log(sum);
    visit(n, t, h, logsumexp);
    double* o = output.data.data() + p.place_of_o(n, t, h);
    for (std::int64_t u = 0; u < p.keys_seen(t); ++u) {
      p.add(std::exp(p.score(n, t, u, h) - logsumexp), p.operand(2, n, u, h), o);
    }
  });
}

const RegisterKernel attention{"attention", [](const Call& c) {
                                 const Problem p(c, 0, c.inputs.size());
                                 attend(p, c.out(0), [&](auto n, auto t, auto h, double logsumexp) {
                                   c.out(1)[p.place_of_logsumexp(n, t, h)] = logsumexp;
                                 });
                               }};

const RegisterKernel cached_attention{"cached_attention", [](const Call& c) {
                                        Problem p(c, 0, 2);
                                        p.keys_before = static_cast<std::int64_t>(c.in(2)[0]);
                                        ops::expect_inside(p.keys_before, p.sizes.queries,
                                                           p.sizes.keys);
                                        attend(p, c.out(0), [](auto...) {});
                                      }};

// With p_tu = e^(s_tu - logsumexp_t) and delta_t = do_t . o_t:
//   dv_u = sum_t p_tu do_t,   ds_tu = p_tu (do_t . v_u - delta_t)
//   dq_t = scale sum_u ds_tu k_u,   dk_u = scale sum_t ds_tu q_t
const RegisterKernel attention_backward{
    "attention_backward", [](const Call& c) {
      const Problem p(c, 3, c.inputs.size() - 3);
      p.for_each_query([&](auto n, auto t, auto h) {
        const double* d_o = c.in(0).data.data() + p.place_of_o(n, t, h);
        const double delta = p.dot(d_o, c.in(1).data.data() + p.place_of_o(n, t, h));
        const double logsumexp = c.in(2)[p.place_of_logsumexp(n, t, h)];
        for (std::int64_t u = 0; u < p.keys_seen(t); ++u) {
          const double probability = std::exp(p.score(n, t, u, h) - logsumexp);
          const double ds = probability * (p.dot(d_o, p.operand(2, n, u, h)) - delta);
          p.add(p.scale * ds, p.operand(1, n, u, h), p.gradient(0, n, t, h));
          p.add(p.scale * ds, p.operand(0, n, t, h), p.gradient(1, n, u, h));
          p.add(probability, d_o, p.gradient(2, n, u, h));
        }
      });
    }};

}  // namespace
}  // namespace concord::ref
