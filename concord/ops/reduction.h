// Reductions over some dims of a tensor. `dims` may count from the end; an empty list means all
// dims. With `keep_dims` a reduced dim stays with extent 1, otherwise it is dropped.
#pragma once

#include <vector>

#include "concord/graph/builder.h"

namespace concord::ops {

ValueId reduce_sum(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                   bool keep_dims = false);
ValueId reduce_mean(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                    bool keep_dims = false);
// The largest element; NaN where one of them is. Its gradient is shared equally among the elements
// that tie for it.
ValueId reduce_max(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& dims,
                   bool keep_dims = false);

}  // namespace concord::ops
