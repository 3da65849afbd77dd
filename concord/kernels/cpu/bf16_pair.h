// Pairs of bf16, which processors multiply and add up in one instruction.
#pragma once

#include <cstdint>
#include <type_traits>

#include "concord/tensor/dtype.h"

namespace concord::cpu {

// Two elements that follow each other along the inner dim of a product, the first in the lower
// half.
struct BF16Pair {
  std::uint32_t bits;
};

// What matrices are made of whose product is that of elements of type T: f32, or pairs of bf16.
template <typename T>
using Factor = std::conditional_t<std::is_same_v<T, BF16>, BF16Pair, float>;

// How many factors hold `count` elements of the inner dim.
template <typename T>
constexpr std::int64_t factors(std::int64_t count) {
  return std::is_same_v<T, BF16> ? (count + 1) / 2 : count;
}

}  // namespace concord::cpu
