#include "concord/ops/shape_ops.h"

#include <cmath>

#include "concord/kernels/ref/reference.h"

namespace concord::ref {
namespace {

// A tensor seen as [outer, extent of `dim`, inner].
struct AroundDim {
  AroundDim(const Shape& shape, std::int64_t dim) : extent(shape[static_cast<int>(dim)]) {
    for (int d = 0; d < shape.rank(); ++d) (d < dim ? outer : inner) *= d == dim ? 1 : shape[d];
  }
  std::int64_t index(std::int64_t o, std::int64_t e, std::int64_t i) const {
    return (o * extent + e) * inner + i;
  }
  std::int64_t outer = 1, extent, inner = 1;
};

// Copies `count` indices of `dim` of x, from `from` on, to those of y from `to` on.
void copy_indices(const Array& x, std::int64_t from, Array& y, std::int64_t to, std::int64_t count,
                  std::int64_t dim) {
  const AroundDim source(x.shape, dim), destination(y.shape, dim);
  for (std::int64_t o = 0; o < source.outer; ++o) {
    for (std::int64_t e = 0; e < count; ++e) {
      for (std::int64_t i = 0; i < source.inner; ++i) {
        y[destination.index(o, to + e, i)] = x[source.index(o, from + e, i)];
      }
    }
  }
}

const RegisterKernel reshape{"reshape", [](const Call& c) { c.out(0).data = c.in(0).data; }};

const RegisterKernel transpose{
    "transpose", [](const Call& c) {
      const std::vector<std::int64_t>& permutation = c.node.attributes.integers("permutation");
      const std::vector<std::int64_t> from = c.in(0).shape.row_major_strides();
      const std::vector<std::int64_t> to = c.out(0).shape.row_major_strides();
      for (std::int64_t i = 0; i < c.out(0).shape.elements(); ++i) {
        std::int64_t source = 0;
        for (std::size_t d = 0; d < to.size(); ++d) {
          source += i / to[d] % c.out(0).shape[static_cast<int>(d)] *
                    from[static_cast<std::size_t>(permutation[d])];
        }
        c.out(0)[i] = c.in(0)[source];
      }
    }};

const RegisterKernel concat{"concat", [](const Call& c) {
                              const std::int64_t dim = c.node.attributes.integer("dim");
                              std::int64_t begin = 0;
                              for (std::size_t i = 0; i < c.inputs.size(); ++i) {
                                const std::int64_t extent = c.in(i).shape[static_cast<int>(dim)];
                                copy_indices(c.in(i), 0, c.out(0), begin, extent, dim);
                                begin += extent;
                              }
                            }};

const RegisterKernel split{"split", [](const Call& c) {
                             const std::int64_t dim = c.node.attributes.integer("dim");
                             std::int64_t begin = 0;
                             for (Array& output : c.outputs) {
                               const std::int64_t extent = output.shape[static_cast<int>(dim)];
                               copy_indices(c.in(0), begin, output, 0, extent, dim);
                               begin += extent;
                             }
                           }};

const RegisterKernel slice{"slice", [](const Call& c) {
                             const Attributes& attributes = c.node.attributes;
                             const std::int64_t begin = attributes.integer("begin");
                             copy_indices(c.in(0), begin, c.out(0), 0,
                                          attributes.integer("end") - begin,
                                          attributes.integer("dim"));
                           }};

const RegisterKernel pad_slice{"pad_slice", [](const Call& c) {
                                 const Attributes& attributes = c.node.attributes;
                                 const std::int64_t dim = attributes.integer("dim");
                                 copy_indices(c.in(0), 0, c.out(0), attributes.integer("begin"),
                                              c.in(0).shape[static_cast<int>(dim)], dim);
                               }};

const RegisterKernel dynamic_slice{
    "dynamic_slice", [](const Call& c) {
      const std::int64_t dim = c.node.attributes.integer("dim");
      const std::int64_t extent = c.node.attributes.integer("extent");
      const auto start = static_cast<std::int64_t>(c.in(1)[0]);
      ops::expect_inside(start, extent, c.in(0).shape[static_cast<int>(dim)]);
      copy_indices(c.in(0), start, c.out(0), 0, extent, dim);
    }};

const RegisterKernel dynamic_update_slice{
    "dynamic_update_slice", [](const Call& c) {
      const std::int64_t dim = c.node.attributes.integer("dim");
      const std::int64_t count = c.in(1).shape[static_cast<int>(dim)];
      const auto start = static_cast<std::int64_t>(c.in(2)[0]);
      ops::expect_inside(start, count, c.in(0).shape[static_cast<int>(dim)]);
      c.out(0).data = c.in(0).data;
      copy_indices(c.in(1), 0, c.out(0), start, count, dim);
    }};

// Floating types are not told apart: the reference does not round.
const RegisterKernel cast{
    "cast", [](const Call& c) {
      const std::string& dtype = c.node.attributes.text("dtype");
      const bool truncates = dtype == "i32" || dtype == "i64" || dtype == "u8";
      for (std::size_t i = 0; i < c.out(0).data.size(); ++i) {
        c.out(0).data[i] = truncates ? std::trunc(c.in(0).data[i]) : c.in(0).data[i];
      }
    }};

}  // namespace
}  // namespace concord::ref
