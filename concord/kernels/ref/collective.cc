#include "concord/ops/collective.h"

#include "concord/kernels/ref/reference.h"

// Those for which a rank needs no other.

namespace concord::ref {
namespace {

const RegisterKernel shard{
    std::string(ops::kShard), [](const Call& c) {
      const Placement split = ops::split_of(c.node);
      const Shape &whole = c.in(0).shape, &part = c.out(0).shape;
      std::vector<std::int64_t> taken;  // indices of the dim
      for (const Range& range :
           ranges_of(whole[split.dim], split, static_cast<int>(c.node.attributes.integer("ranks")),
                     static_cast<int>(c.node.attributes.integer("index")))) {
        for (std::int64_t i = range.begin; i < range.end; ++i) taken.push_back(i);
      }
      const std::vector<std::int64_t> from = whole.row_major_strides();
      const std::vector<std::int64_t> to = part.row_major_strides();
      for (std::int64_t i = 0; i < part.elements(); ++i) {
        std::int64_t source = 0;
        for (int d = 0; d < part.rank(); ++d) {
          const auto stride = static_cast<std::size_t>(d);
          const std::int64_t index = i / to[stride] % part[d];
          source +=
              (d == split.dim ? taken[static_cast<std::size_t>(index)] : index) * from[stride];
        }
        c.out(0)[i] = c.in(0)[source];
      }
    }};

const RegisterKernel first_summand{std::string(ops::kFirstSummand), [](const Call& c) {
                                     if (c.node.attributes.integer("index") == 0) {
                                       c.out(0).data = c.in(0).data;
                                     }
                                   }};

}  // namespace
}  // namespace concord::ref
