// LowRankSum: an encoded sum (encoded_sum.h) of matrices, of which factors of low rank are sent:
// PowerSGD (T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: practical low-rank gradient
// compression for distributed optimization", NeurIPS 2019, algorithms 1 and 2).
//
// Encoder e has the matrix M_e [n, m]: the sum over its leaves and what it has kept. With Q [m, r]
// of the step before, a rank that there is to find (one step of subspace iteration):
//   P = sum of M_e Q, whose columns are made orthonormal (Gram-Schmidt)
//   Q_e = transposed(M_e) P, Q = sum of Q_e
// The sum of the matrices comes out as P transposed(Q), and e keeps M_e - P transposed(Q_e). P and
// Q are summed along the canonical tree over the encoders: r (n + m) numbers of a matrix are
// all-reduced in the place of n m, whatever the ranks are.
//
// A tensor [n, ...] is taken as the matrix of its rows, whatever its layout is. Columns of Q that
// are zeros, as all are before the first step and some after a matrix of lower rank, are drawn at
// random. Where a number is not finite, all of the tensor's sum is NaN, and what is kept stays as
// it was.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "concord/base/philox.h"
#include "concord/comm/encoded_sum.h"
#include "concord/tensor/layout.h"
#include "concord/tensor/shape.h"

namespace concord::comm {

class LowRankSum final : public EncodedSum {
 public:
  struct Tensor {
    std::size_t offset = 0;  // bytes, in each of the parts
    Shape shape;
    Layout layout;
    int rank = 1;              // of the factors
    std::uint32_t stream = 0;  // of the first Q's random numbers
  };
  // Of an encoder one array is kept, laid out as the tensor; of the sum, Q [m, r] of the step
  // before, the same on every rank, and all zeros before the first.
  LowRankSum(std::vector<Tensor> tensors, const Encoders& encoders);

  std::optional<Operation> next() override;
  std::size_t bytes() const override;

 private:
  struct Matrix {
    std::int64_t rows = 0, columns = 0;
    int rank = 1;
    // Where element (i, j) lies: row_offsets[i] + column_offsets[j].
    std::vector<std::int64_t> row_offsets, column_offsets;
    std::int64_t stored = 0;
    std::size_t p = 0, q = 0;  // where its factors begin in p_ and q_
    std::size_t values = 0;    // and, of each encoder, the matrix in values_
    bool is_finite = true;     // in this step
  };

  void restart() override { round_ = 0; }
  float* values_of(const Matrix& matrix, std::int64_t encoder);
  void take_values();
  void project();
  void find_factors();
  void put_sums();
  void add_up(std::vector<float>& sums, std::size_t count);
  void draw_zero_columns(const Matrix& matrix, const Tensor& tensor, float* q) const;

  std::vector<Tensor> tensors_;
  std::vector<Matrix> matrices_;
  int round_ = 0;
  std::size_t p_count_ = 0, q_count_ = 0, values_count_ = 0;
  std::vector<float> values_;  // of this rank's encoders
  std::vector<float> p_, q_;   // of each of them; the first becomes the sum
  Joins joins_;
  std::vector<Subtree> nodes_;
};

// Makes the columns of a row-major matrix [rows, columns] orthonormal, from the first to the last,
// by dot products in double precision; a column that the ones before it span becomes zeros.
void orthonormalize(std::span<float> matrix, std::int64_t rows, std::int64_t columns);

}  // namespace concord::comm
