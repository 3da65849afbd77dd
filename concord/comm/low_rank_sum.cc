#include "concord/comm/low_rank_sum.h"

#include <algorithm>
#include <cmath>
#include <dnnl.hpp>
#include <limits>

#include "concord/base/error.h"
#include "concord/comm/codec_vectors.h"
#include "concord/comm/communicator.h"

namespace concord::comm {
namespace {

// c = alpha * op(a) * op(b) + beta * c, row-major: c is [m, n], the inner extent k.
void multiply(char transpose_a, char transpose_b, std::int64_t m, std::int64_t n, std::int64_t k,
              float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
              float beta, float* c, std::int64_t ldc) {
  const auto status =
      dnnl::sgemm(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
  CONCORD_CHECK(status == dnnl::status::success, "sgemm of [{}, {}] and [{}, {}]", m, k, k, n);
}

}  // namespace

void orthonormalize(std::span<float> matrix, std::int64_t rows, std::int64_t columns) {
  const auto at = [&](std::int64_t i, std::int64_t j) -> float& {
    return matrix[static_cast<std::size_t>(i * columns + j)];
  };
  const auto dot = [&](std::int64_t a, std::int64_t b) {
    double sum = 0;
    for (std::int64_t i = 0; i < rows; ++i) sum += double{at(i, a)} * double{at(i, b)};
    return sum;
  };
  for (std::int64_t j = 0; j < columns; ++j) {
    const double before = std::sqrt(dot(j, j));
    for (std::int64_t other = 0; other < j; ++other) {
      const double share = dot(other, j);
      for (std::int64_t i = 0; i < rows; ++i) {
        at(i, j) = static_cast<float>(double{at(i, j)} - share * double{at(i, other)});
      }
    }
    const double length = std::sqrt(dot(j, j));
    constexpr double kSpanned = 1e-6;  // of it; the rest is rounding
    const double factor = length > kSpanned * before ? 1 / length : 0;
    for (std::int64_t i = 0; i < rows; ++i) at(i, j) = static_cast<float>(at(i, j) * factor);
  }
}

LowRankSum::LowRankSum(std::vector<Tensor> tensors, const Encoders& of)
    : EncodedSum(of, tensors.size()), tensors_(std::move(tensors)) {
  for (const Tensor& tensor : tensors_) {
    CONCORD_CHECK(tensor.shape.rank() >= 2, "a matrix of shape {}", to_string(tensor.shape));
    Matrix& matrix = matrices_.emplace_back();
    matrix.rows = tensor.shape[0];
    matrix.columns = tensor.shape.elements() / matrix.rows;
    matrix.rank = tensor.rank;
    matrix.stored = tensor.layout.stored_elements(tensor.shape);
    matrix.row_offsets = tensor.layout.dim_offsets(tensor.shape, 0);
    matrix.column_offsets = {0};
    for (int d = 1; d < tensor.shape.rank(); ++d) {
      std::vector<std::int64_t> sums;
      for (const std::int64_t offset : matrix.column_offsets) {
        for (const std::int64_t more : tensor.layout.dim_offsets(tensor.shape, d)) {
          sums.push_back(offset + more);
        }
      }
      matrix.column_offsets = std::move(sums);
    }
    matrix.p = p_count_;
    matrix.q = q_count_;
    matrix.values = values_count_;
    p_count_ += static_cast<std::size_t>(matrix.rows * matrix.rank);
    q_count_ += static_cast<std::size_t>(matrix.columns * matrix.rank);
    values_count_ += static_cast<std::size_t>(matrix.rows * matrix.columns);
  }
  const auto own = static_cast<std::size_t>(encoders().own());
  values_.resize(own * values_count_);
  p_.resize(own * p_count_);
  q_.resize(own * q_count_);
  for (std::int64_t e = 0; e < encoders().own(); ++e) nodes_.push_back({0, e});
}

std::size_t LowRankSum::bytes() const {
  return (values_.size() + p_.size() + q_.size()) * sizeof(float);
}

std::optional<Operation> LowRankSum::next() {
  switch (round_++) {
    case 0:
      take_values();
      project();
      return all_reduce(std::span(p_).first(p_count_), std::span(p_).first(p_count_));
    case 1:
      find_factors();
      return all_reduce(std::span(q_).first(q_count_), std::span(q_).first(q_count_));
    default:
      put_sums();
      return std::nullopt;
  }
}

float* LowRankSum::values_of(const Matrix& matrix, std::int64_t encoder) {
  return values_.data() + static_cast<std::size_t>(encoder) * values_count_ + matrix.values;
}

// Row-major: what the leaves of an encoder give, with what it has kept.
void LowRankSum::take_values() {
  for (std::size_t t = 0; t < matrices_.size(); ++t) {
    join_leaves(tensors_[t].offset, matrices_[t].stored);
  }
  for (std::int64_t e = 0; e < encoders().own(); ++e) {
    for (std::size_t t = 0; t < matrices_.size(); ++t) {
      const Matrix& matrix = matrices_[t];
      const float* const kept = memories()[t].own[0] + e * matrix.stored;
      const float* const given = EncodedSum::values_of(e, tensors_[t].offset);
      float* to = values_of(matrix, e);
      for (const std::int64_t row : matrix.row_offsets) {
        for (const std::int64_t column : matrix.column_offsets) {
          const std::int64_t place = row + column;
          *to++ = kept[place] + (given == nullptr ? 0 : given[place]);
        }
      }
    }
  }
}

void LowRankSum::draw_zero_columns(const Matrix& matrix, const Tensor& tensor, float* q) const {
  const RandomStream random{.seed = encoders().seed, .stream = tensor.stream};
  for (std::int64_t column = 0; column < matrix.rank; ++column) {
    bool is_zero = true;
    for (std::int64_t i = 0; i < matrix.columns && is_zero; ++i) {
      is_zero = q[i * matrix.rank + column] == 0;
    }
    if (!is_zero) continue;
    for (std::int64_t i = 0; i < matrix.columns; ++i) {
      const auto n = static_cast<std::uint64_t>(i * matrix.rank + column);
      q[n] = normal01(random.bits(2 * n), random.bits(2 * n + 1));
    }
  }
}

void LowRankSum::project() {
  for (std::size_t t = 0; t < matrices_.size(); ++t) {
    const Matrix& matrix = matrices_[t];
    float* const q = memories()[t].of_sum[0];
    draw_zero_columns(matrix, tensors_[t], q);
    for (std::int64_t e = 0; e < encoders().own(); ++e) {
      float* const p = p_.data() + static_cast<std::size_t>(e) * p_count_ + matrix.p;
      multiply('N', 'N', matrix.rows, matrix.rank, matrix.columns, 1, values_of(matrix, e),
               matrix.columns, q, matrix.rank, 0, p, matrix.rank);
    }
  }
  add_up(p_, p_count_);
}

// P is there: the encoders' shares of Q, and what is left of their matrices.
void LowRankSum::find_factors() {
  for (std::size_t t = 0; t < matrices_.size(); ++t) {
    Matrix& matrix = matrices_[t];
    float* const p = p_.data() + matrix.p;
    const auto p_count = static_cast<std::size_t>(matrix.rows * matrix.rank);
    // What any encoder has that is not finite is in P.
    matrix.is_finite = all_below(p, std::numeric_limits<float>::infinity(), p_count);
    if (!matrix.is_finite) continue;
    orthonormalize({p, p_count}, matrix.rows, matrix.rank);
    for (std::int64_t e = 0; e < encoders().own(); ++e) {
      float* const q = q_.data() + static_cast<std::size_t>(e) * q_count_ + matrix.q;
      float* const values = values_of(matrix, e);
      multiply('T', 'N', matrix.columns, matrix.rank, matrix.rows, 1, values, matrix.columns, p,
               matrix.rank, 0, q, matrix.rank);
      multiply('N', 'T', matrix.rows, matrix.columns, matrix.rank, -1, p, matrix.rank, q,
               matrix.rank, 1, values, matrix.columns);
      float* const kept = memories()[t].own[0] + e * matrix.stored;
      const float* from = values;
      for (const std::int64_t row : matrix.row_offsets) {
        for (const std::int64_t column : matrix.column_offsets) kept[row + column] = *from++;
      }
    }
  }
  add_up(q_, q_count_);
}

void LowRankSum::put_sums() {
  for (std::size_t t = 0; t < matrices_.size(); ++t) {
    const Matrix& matrix = matrices_[t];
    float* const out = EncodedSum::out(tensors_[t].offset);
    if (!matrix.is_finite) {
      std::fill_n(out, matrix.stored, std::numeric_limits<float>::quiet_NaN());
      continue;
    }
    const float* const q = q_.data() + matrix.q;
    std::copy_n(q, matrix.columns * matrix.rank, memories()[t].of_sum[0]);
    float* const sum = values_of(matrix, 0);
    multiply('N', 'T', matrix.rows, matrix.columns, matrix.rank, 1, p_.data() + matrix.p,
             matrix.rank, q, matrix.rank, 0, sum, matrix.columns);
    std::fill_n(out, matrix.stored, 0.0f);
    const float* from = sum;
    for (const std::int64_t row : matrix.row_offsets) {
      for (const std::int64_t column : matrix.column_offsets) out[row + column] = *from++;
    }
  }
}

// Of this rank's encoders, along the canonical tree; the ranks go on with it.
void LowRankSum::add_up(std::vector<float>& sums, std::size_t count) {
  for (const Join& join : joins_.of(nodes_)) {
    add_floats(reinterpret_cast<std::byte*>(sums.data() + join.into * count),
               reinterpret_cast<const std::byte*>(sums.data() + join.from * count),
               count * sizeof(float));
  }
}

}  // namespace concord::comm
