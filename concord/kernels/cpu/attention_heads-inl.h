// Blocks of heads and of scores as factors of products, and back; compiled once for each
// instruction set, like vector_math-inl.h.
//
// A block of a head is a matrix of positions by channels, a block of scores one of keys by kBlock
// queries, in f32. Where heads are f32, factors are read where they lie, but for queries, which are
// also transposed. Where they are bf16, factors are pairs along the inner dim, so each product has
// its own, made from the block for the purpose.
#if defined(CONCORD_KERNELS_CPU_ATTENTION_HEADS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef CONCORD_KERNELS_CPU_ATTENTION_HEADS_INL_H_
#undef CONCORD_KERNELS_CPU_ATTENTION_HEADS_INL_H_
#else
#define CONCORD_KERNELS_CPU_ATTENTION_HEADS_INL_H_
#endif

#include "concord/kernels/cpu/attention_heads.h"
#include "concord/kernels/cpu/block_matmul-inl.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

std::int64_t lanes() { return static_cast<std::int64_t>(hn::Lanes(D())); }
std::int64_t whole_vectors(std::int64_t count) { return (count + lanes() - 1) / lanes() * lanes(); }

// to[j, i] = f(from[i, j]) for a matrix of rows x columns; four rows at a time. f is given a vector
// or a number.
template <typename F>
void transpose(const float* from, std::int64_t from_stride, std::int64_t rows, std::int64_t columns,
               F f, float* to, std::int64_t to_stride) {
  const hn::CappedTag<float, 4> d;
  const auto width = static_cast<std::int64_t>(hn::Lanes(d));
  std::int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const auto load = [&](std::int64_t r, std::int64_t j) {
      return f(hn::LoadU(d, from + (i + r) * from_stride + j));
    };
    std::int64_t j = 0;
    for (; j + width <= columns; j += width) {
      HWY_ALIGN float quads[4 * hn::MaxLanes(d)];
      hn::StoreInterleaved4(load(0, j), load(1, j), load(2, j), load(3, j), d, quads);
      for (std::int64_t c = 0; c < width; ++c)
        std::copy_n(quads + 4 * c, 4, to + (j + c) * to_stride + i);
    }
    for (; j < columns; ++j) {
      for (std::int64_t r = i; r < i + 4; ++r) to[j * to_stride + r] = f(from[r * from_stride + j]);
    }
  }
  for (; i < rows; ++i) {
    for (std::int64_t j = 0; j < columns; ++j) to[j * to_stride + i] = f(from[i * from_stride + j]);
  }
}

struct Scaled {
  float scale;
  float operator()(float x) const { return scale * x; }
  template <typename Vector>
  Vector operator()(Vector x) const {
    return hn::Mul(x, hn::Set(hn::DFromV<Vector>(), scale));
  }
};

struct AsItIs {
  template <typename Vector>
  Vector operator()(Vector x) const {
    return x;
  }
};

// Zeros in columns [count, whole vectors) of rows that are kBlock columns wide.
template <typename F>
void pad_columns(F* to, std::int64_t rows, std::int64_t count) {
  for (std::int64_t i = 0; i < rows; ++i) {
    std::fill(to + i * kBlock + count, to + i * kBlock + whole_vectors(count), F());
  }
}

// Positions as rows of pairs of channels [positions, factors of the head size]; the channel that an
// odd head size lacks is zero.
void pair_channels(const HeadBlock<BF16>& block, BF16Pair* to) {
  const std::int64_t width = factors<BF16>(block.head_size);
  for (std::int64_t i = 0; i < block.count; ++i) {
    auto* row = reinterpret_cast<BF16*>(to + i * width);
    std::copy_n(block.row(i), block.head_size, row);
    if (block.head_size % 2 != 0) row[block.head_size] = BF16();
  }
}

// Pairs of positions as rows of channels [factors of the positions, padded head size]; zeros in the
// padding, and for the position that an odd number of them lacks.
void pair_positions(const HeadBlock<BF16>& block, BF16Pair* to) {
  const std::int64_t width = padded_size(block.head_size);
  for (std::int64_t i = 0; i < block.count; i += 2) {
    BF16Pair* row = to + i / 2 * width;
    pair_up(block.row(i), i + 1 < block.count ? block.row(i + 1) : nullptr, row, block.head_size);
    std::fill(row + block.head_size, row + width, BF16Pair());
  }
}

// The transposed block as a right factor [channels, kBlock positions], with zeros after the last
// position to whole vectors. Those of bf16 are not scaled; `rows` is room for a block.
void load_columns(const HeadBlock<float>& block, float scale, float* /*rows*/, float* to) {
  transpose(block.data, block.stride, block.count, block.head_size, Scaled{scale}, to, kBlock);
  pad_columns(to, block.head_size, block.count);
}
void load_columns(const HeadBlock<BF16>& block, float /*scale*/, BF16Pair* rows, BF16Pair* to) {
  const std::int64_t width = factors<BF16>(block.head_size);
  pair_channels(block, rows);
  transpose(reinterpret_cast<const float*>(rows), width, block.count, width, AsItIs(),
            reinterpret_cast<float*>(to), kBlock);
  pad_columns(to, width, block.count);
}

// The block as a right factor [positions, padded head size], with zeros in the padding; scaled
// likewise.
void load_rows(const HeadBlock<float>& block, float scale, float* to) {
  const std::int64_t width = padded_size(block.head_size);
  for (std::int64_t i = 0; i < block.count; ++i) {
    const float* row = block.row(i);
    for (std::int64_t j = 0; j < block.head_size; ++j) to[i * width + j] = scale * row[j];
    std::fill(to + i * width + block.head_size, to + (i + 1) * width, 0.0f);
  }
}
void load_rows(const HeadBlock<BF16>& block, float /*scale*/, BF16Pair* to) {
  pair_positions(block, to);
}

// The block as a left factor, [positions, channels] or transposed.
LeftFactor<float> as_rows(const HeadBlock<float>& block, float* /*copy*/) {
  return {block.data, block.stride, 1};
}
LeftFactor<BF16Pair> as_rows(const HeadBlock<BF16>& block, BF16Pair* copy) {
  pair_channels(block, copy);
  return {copy, factors<BF16>(block.head_size), 1};
}
LeftFactor<float> as_columns(const HeadBlock<float>& block, float* /*copy*/) {
  return {block.data, 1, block.stride};
}
LeftFactor<BF16Pair> as_columns(const HeadBlock<BF16>& block, BF16Pair* copy) {
  pair_positions(block, copy);
  return {copy, 1, padded_size(block.head_size)};
}

// Some columns of a block of scores as a right factor [keys, queries].
RightFactor<float> as_right(const float* scores, std::int64_t /*keys*/, Range columns,
                            float* /*copy*/) {
  return {scores + columns.begin, kBlock};
}
RightFactor<BF16Pair> as_right(const float* scores, std::int64_t keys, Range columns,
                               BF16Pair* copy) {
  const D d;
  const hn::RebindToUnsigned<D> bits;
  const auto rounded = [&](std::int64_t key, std::int64_t q) {  // the upper half is the bf16
    const auto wide = hn::BitCast(bits, hn::Load(d, scores + key * kBlock + q));
    const auto odd = hn::And(hn::ShiftRight<16>(wide), hn::Set(bits, 1));
    return hn::Add(wide, hn::Add(odd, hn::Set(bits, 0x7fff)));
  };
  for (std::int64_t key = 0; key < keys; key += 2) {
    auto* row = reinterpret_cast<std::uint32_t*>(copy + key / 2 * kBlock);
    for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
      const auto lower = hn::ShiftRight<16>(rounded(key, q));
      const auto upper = key + 1 < keys ? hn::And(rounded(key + 1, q), hn::Set(bits, 0xffff0000u))
                                        : hn::Zero(bits);
      hn::StoreU(hn::Or(lower, upper), bits, row + q);
    }
  }
  return {copy + columns.begin, kBlock};
}

// The same as a left factor [keys, queries].
LeftFactor<float> as_left(const float* scores, std::int64_t /*keys*/, Range columns,
                          float* /*copy*/) {
  return {scores + columns.begin, kBlock, 1};
}
LeftFactor<BF16Pair> as_left(const float* scores, std::int64_t keys, Range columns,
                             BF16Pair* copy) {
  auto* halves = reinterpret_cast<BF16*>(copy);
  for (std::int64_t key = 0; key < keys; ++key) {
    for (std::int64_t q = columns.begin; q < columns.end; q += lanes()) {
      store_vector(D(), hn::Load(D(), scores + key * kBlock + q), halves + key * kBlock + q);
    }
  }
  return {copy + columns.begin / 2, kBlock / 2, 1};
}

// block = scale * from, `from` being [positions, padded head size].
template <typename T>
void store_rows(const float* from, float scale, const HeadBlock<T>& block) {
  const V factor = splat(scale);
  for (std::int64_t i = 0; i < block.count; ++i) {
    const float* row = from + i * padded_size(block.head_size);
    for_each_vector(static_cast<std::size_t>(block.head_size), [&](auto j, auto n, int) {
      store(hn::Mul(load(row + j, n), factor), block.row(i) + j, n);
    });
  }
}

// The same with `from` transposed, [channels, kBlock positions]; a few positions at a time: they
// may lie so that a cache holds only a few. `rows` is room for a block.
void store_columns(const float* from, float scale, const HeadBlock<float>& block, float* /*rows*/) {
  for (std::int64_t i = 0; i < block.count; i += 4) {
    transpose(from + i, kBlock, block.head_size, std::min<std::int64_t>(4, block.count - i),
              Scaled{scale}, block.row(i), block.stride);
  }
}
void store_columns(const float* from, float scale, const HeadBlock<BF16>& block, BF16Pair* rows) {
  auto* wide = reinterpret_cast<float*>(rows);
  for (std::int64_t i = 0; i < block.count; i += 4) {
    const std::int64_t count = std::min<std::int64_t>(4, block.count - i);
    transpose(from + i, kBlock, block.head_size, count, Scaled{scale}, wide, block.head_size);
    for (std::int64_t r = 0; r < count; ++r) {
      for_each_vector(static_cast<std::size_t>(block.head_size), [&](auto j, auto n, int) {
        store(load(wide + r * block.head_size + static_cast<std::int64_t>(j), n),
              block.row(i + r) + j, n);
      });
    }
  }
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // CONCORD_KERNELS_CPU_ATTENTION_HEADS_INL_H_
