// Buffer: owned, aligned bytes. Tensor: a typed, shaped view of row-major bytes that it does not
// own. Thread safety: none added; a buffer is used by one thread or read by many.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "concord/base/error.h"
#include "concord/tensor/dtype.h"
#include "concord/tensor/shape.h"

namespace concord {

// Zero-initialised memory aligned to 64 bytes (a cache line and an AVX-512 register), resident from
// the start. What a large buffer had goes back to the system when it is freed. Movable.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::size_t bytes);

  std::byte* data() const { return data_.get(); }
  std::size_t bytes() const { return bytes_; }

 private:
  struct Free {
    std::size_t mapped;  // bytes of a mapping of its own; 0: from the heap
    void operator()(std::byte* data) const;
  };
  std::unique_ptr<std::byte, Free> data_;
  std::size_t bytes_ = 0;
};

struct TensorType {
  DType dtype = DType::kF32;
  Shape shape;

  std::size_t bytes() const { return static_cast<std::size_t>(shape.elements()) * size_of(dtype); }
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

// "f32[2, 3]"
std::string to_string(const TensorType& type);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};

struct Tensor {
  TensorType type;
  std::byte* data = nullptr;

  // The elements as T, which must be the tensor's element type.
  template <typename T>
  std::span<T> as() const {
    CONCORD_CHECK(DTypeOf<std::remove_const_t<T>>::value == type.dtype, "{}",
                  to_string(type.dtype));
    return {reinterpret_cast<T*>(data), static_cast<std::size_t>(type.shape.elements())};
  }
};

// A tensor together with its memory.
class OwnedTensor {
 public:
  OwnedTensor() = default;
  explicit OwnedTensor(TensorType type) : type_(std::move(type)), buffer_(type_.bytes()) {}

  Tensor view() const { return {type_, buffer_.data()}; }
  const TensorType& type() const { return type_; }
  template <typename T>
  std::span<T> as() const {
    return view().as<T>();
  }

 private:
  TensorType type_;
  Buffer buffer_;
};

}  // namespace concord
