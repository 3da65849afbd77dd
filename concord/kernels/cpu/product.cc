#include "concord/kernels/cpu/product.h"

#include "concord/base/error.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/operands.h"

namespace concord::cpu {
namespace {

// oneDNN's sgemm. In oneDNN 2.6.3 it is a few percent ahead of matmul where the rows of b are
// contiguous, as in both gradients of a linear layer (docs/performance.md), and behind elsewhere.
// Where it cuts a long sum depends on the rows and columns that there are; matmul's sums of f32
// were not seen to (CpuKernel.PartsOfAProductHaveTheBitsOfTheWhole).
class Sgemm final : public Kernel {
 public:
  explicit Sgemm(const Product& p)
      : transpose_a_(p.transpose_a),
        add_(p.add),
        rows_(p.y.shape[0]),
        inner_(p.b.shape[0]),
        columns_(p.y.shape[1]) {}

  static bool computes(const Product& p) {
    return p.a.shape.rank() == 2 && p.a.dtype == DType::kF32 && !p.transpose_b && !p.bias &&
           !p.same_in_parts;
  }

  void run(std::span<std::byte* const> operands) override {
    const dnnl::status status =
        dnnl::sgemm(transpose_a_ ? 'T' : 'N', 'N', rows_, columns_, inner_, 1.0f,
                    as<float>(operands[0]), transpose_a_ ? rows_ : inner_, as<float>(operands[1]),
                    columns_, add_ ? 1.0f : 0.0f, as<float>(operands[2]), columns_);
    CONCORD_CHECK(status == dnnl::status::success, "oneDNN status {}", static_cast<int>(status));
  }

 private:
  bool transpose_a_, add_;
  std::int64_t rows_, inner_, columns_;
};

onednn::MemoryDesc row_vector(const TensorType& type, bool stacked) {
  dnnl::memory::dims dims = {1, type.shape[0]};
  if (stacked) dims.insert(dims.begin(), 1);
  return {dims, onednn::data_type(type.dtype),
          stacked ? dnnl::memory::format_tag::abc : dnnl::memory::format_tag::ab};
}

}  // namespace

std::unique_ptr<Kernel> make_product(const Product& p) {
  if (Sgemm::computes(p)) return std::make_unique<Sgemm>(p);
  std::vector<int> arguments = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS};
  std::optional<onednn::MemoryDesc> bias;
  if (p.bias) {
    bias = row_vector(*p.bias, p.y.shape.rank() > 2);
    arguments.push_back(DNNL_ARG_BIAS);
  }
  arguments.push_back(DNNL_ARG_DST);
  const onednn::PrimitiveDesc desc =
      onednn::matmul(onednn::matrices(p.a, p.transpose_a), onednn::matrices(p.b, p.transpose_b),
                     bias, onednn::matrices(p.y), p.add);
  CONCORD_CHECK(desc, "oneDNN has no product of {} and {}", to_string(p.a), to_string(p.b));
  return std::make_unique<onednn::OneDnnKernel>(desc, arguments);
}

}  // namespace concord::cpu
