// Where the attention kernel finds heads in memory, and the scratch memory of its blocks.
#pragma once

#include <cstdint>

#include "concord/kernels/cpu/bf16_pair.h"

namespace concord::cpu {

// Queries, and keys, of a block. A multiple of every instruction set's lanes.
inline constexpr std::int64_t kBlock = 64;

struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// Heads of a [samples, length, stored heads, head size] in memory.
template <typename T>
struct HeadRows {
  T* data = nullptr;  // of the first head
  std::int64_t length = 0, stored_heads = 0, head_size = 0;

  std::int64_t stride() const { return stored_heads * head_size; }  // between positions
  T* at(std::int64_t n, std::int64_t position, std::int64_t head) const {
    return data + (n * length + position) * stride() + head * head_size;
  }
};

// Some positions of one head.
template <typename T>
struct HeadBlock {
  HeadBlock(const HeadRows<T>& heads, std::int64_t n, Range positions, std::int64_t head)
      : data(heads.at(n, positions.begin, head)),
        stride(heads.stride()),
        count(positions.size()),
        head_size(heads.head_size) {}
  T* row(std::int64_t i) const { return data + i * stride; }

  T* data;
  std::int64_t stride, count, head_size;
};

// Runs of 4-byte elements, each of whole cache lines, cut from a scratchpad one after the other.
// Without one, counts what would be needed.
class Scratch {
 public:
  explicit Scratch(float* data = nullptr) : data_(data) {}
  template <typename F = float>
  F* take(std::int64_t count) {
    float* const taken = data_ == nullptr ? nullptr : data_ + used_;
    used_ += (count + 15) / 16 * 16;
    return reinterpret_cast<F*>(taken);
  }
  std::int64_t used() const { return used_; }

 private:
  float* data_;
  std::int64_t used_ = 0;
};

// Rows of vectors of the head size are padded to whole vectors of any instruction set.
inline std::int64_t padded_size(std::int64_t head_size) { return (head_size + 15) / 16 * 16; }

}  // namespace concord::cpu
