// Shape: the extent of each dim of a tensor, outermost first. A scalar has no dims and one element.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace concord {

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<std::int64_t> dims) : dims_(dims) {}
  explicit Shape(std::vector<std::int64_t> dims) : dims_(std::move(dims)) {}

  int rank() const { return static_cast<int>(dims_.size()); }
  // Extent of dim `i`; a negative `i` counts from the end.
  std::int64_t operator[](int i) const {
    return dims_[static_cast<std::size_t>(i < 0 ? i + rank() : i)];
  }
  std::int64_t elements() const {
    std::int64_t product = 1;
    for (const std::int64_t dim : dims_) product *= dim;
    return product;
  }
  const std::vector<std::int64_t>& dims() const { return dims_; }
  // The same shape with dim `i` replaced.
  Shape with(int i, std::int64_t extent) const {
    Shape result = *this;
    result.dims_[static_cast<std::size_t>(i < 0 ? i + rank() : i)] = extent;
    return result;
  }
  // Elements between neighbours along each dim when stored row-major without gaps.
  std::vector<std::int64_t> row_major_strides() const;

  auto begin() const { return dims_.begin(); }
  auto end() const { return dims_.end(); }
  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::vector<std::int64_t> dims_;
};

// "[32, 3, 224, 224]"
std::string to_string(const Shape& shape);

// The shape both operands take under numpy's broadcasting rule: dims are aligned at the end, and an
// extent of 1 stretches. Throws Error naming both shapes where they do not fit.
Shape broadcast(const Shape& a, const Shape& b);

}  // namespace concord
