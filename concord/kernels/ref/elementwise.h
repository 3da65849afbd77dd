// Element-wise functions for the reference kernels.
#pragma once

#include "concord/kernels/ref/reference.h"

namespace concord::ref {

// out = f(in0), element by element.
template <typename F>
void unary_apply(const Call& c, F f) {
  for (std::size_t i = 0; i < c.out(0).data.size(); ++i) c.out(0).data[i] = f(c.in(0).data[i]);
}

// out = f(in0, in1), element by element, for inputs of one shape.
template <typename F>
void binary_apply(const Call& c, F f) {
  for (std::size_t i = 0; i < c.out(0).data.size(); ++i) {
    c.out(0).data[i] = f(c.in(0).data[i], c.in(1).data[i]);
  }
}

}  // namespace concord::ref
