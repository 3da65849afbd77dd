// Cross-entropy of a linear layer in blocks of rows by panels of classes.
//
// One block of rows at a time: panel by panel its logits are computed, and while a panel is in the
// cache, the sums that softmax needs (Milakov, Gimelshein 2018) are brought up to date. Then, panel
// by panel, the logits become their gradients, which are multiplied into dx and dw while they are
// in the cache. So of all logits those of one block are kept, and three products are computed where
// keeping none would take four. Without gradients only a panel is kept.
//
// Rows whose label is ignored are left out: a block is packed from the rows that count.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "concord/ops/softmax.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "concord/kernels/cpu/linear_cross_entropy.cc"
#include <hwy/foreach_target.h>
// After foreach_target.
#include <hwy/highway.h>

#include "concord/base/parallel.h"
#include "concord/kernels/cpu/elementwise.h"
#include "concord/kernels/cpu/onednn.h"
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/kernels/cpu/vector_loops-inl.h"

#ifndef CONCORD_KERNELS_CPU_LINEAR_CROSS_ENTROPY_ONCE_
#define CONCORD_KERNELS_CPU_LINEAR_CROSS_ENTROPY_ONCE_
namespace concord::cpu {

// What the panels so far say about the logits x of a row.
struct RowSums {
  float largest = -std::numeric_limits<float>::infinity();
  double exponentials = 0;  // sum over j of e^(x_j - largest)
  double total = 0;         // sum over j of x_j
  // The label's logit, NaN until its panel comes, and the largest before it.
  float labelled = std::numeric_limits<float>::quiet_NaN();
  float before_labelled = -std::numeric_limits<float>::infinity();

  // The first of equal logits wins.
  bool is_correct() const {
    return labelled == largest && labelled > before_labelled && std::isfinite(exponentials);
  }
};

}  // namespace concord::cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace concord::cpu::HWY_NAMESPACE {
namespace {

constexpr float kLowest = -std::numeric_limits<float>::infinity();

float largest_of(const float* x, std::size_t count) {
  const D d;
  V parts[4] = {splat(kLowest), splat(kLowest), splat(kLowest), splat(kLowest)};
  for_each_vector(count, [&](std::size_t i, std::size_t n, int k) {
    parts[k] = hn::Max(parts[k], load(x + i, n, kLowest));
  });
  const V all = hn::Max(hn::Max(parts[0], parts[1]), hn::Max(parts[2], parts[3]));
  return hn::GetLane(hn::MaxOfLanes(d, all));
}

// Adds the row's logits x of one more panel. `label`: the label's place in it, if it has one. NaN
// anywhere makes the exponentials NaN.
void AddToRow(const float* x, std::size_t classes, std::int64_t label, RowSums& row) {
  if (label >= 0 && label < static_cast<std::int64_t>(classes)) {
    row.labelled = x[label];
    row.before_labelled = std::max(row.largest, largest_of(x, static_cast<std::size_t>(label)));
  }
  const float largest = std::max(row.largest, largest_of(x, classes));
  Sum exponentials, total;
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int k) {
    const V below = hn::Sub(load(x + i, n, kLowest), splat(largest));
    exponentials.add(k, exp_below_zero(D(), below));
    total.add(k, load(x + i, n));
  });
  if (largest > row.largest) row.exponentials *= std::exp(double{row.largest} - largest);
  row.exponentials += exponentials.total();
  row.total += total.total();
  row.largest = largest;
}

// x = factor * e^(x - largest) - other.
void Gradient(float* x, std::size_t classes, float largest, float factor, float other) {
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int) {
    const V e = exp_below_zero(D(), hn::Sub(load(x + i, n), splat(largest)));
    store(hn::MulSub(splat(factor), e, splat(other)), x + i, n);
  });
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(AddToRow);
HWY_EXPORT(Gradient);

namespace {

// The most rows of a block and classes of a panel. Each block reads w twice and dw once and writes
// dw, which more rows make rarer; a panel is meant to stay in the cache from one pass to the next.
constexpr std::int64_t kBlockRows = 512;
constexpr std::int64_t kPanelClasses = 512;

// The size of equal parts, multiples of `unit`, but for the last, into which `count` falls.
std::int64_t part_size(std::int64_t count, std::int64_t most, std::int64_t unit) {
  const std::int64_t parts = std::max<std::int64_t>(1, (count + most - 1) / most);
  const std::int64_t size = (count + parts - 1) / parts;
  return std::max<std::int64_t>(1, std::min((size + unit - 1) / unit * unit, count));
}

struct Sizes {
  explicit Sizes(std::span<const Operand> layer)
      : rows(layer[0].type.shape[0]),
        features(layer[0].type.shape[1]),
        classes(layer[1].type.shape[0]),
        block_rows(part_size(rows, kBlockRows, 1)),
        panel_classes(part_size(classes, kPanelClasses, 16)),
        panels((classes + panel_classes - 1) / panel_classes) {}

  // Classes of a panel: the last may be narrower.
  std::int64_t width(std::int64_t panel) const {
    return std::min(panel_classes, classes - panel * panel_classes);
  }

  std::int64_t rows, features, classes;
  std::int64_t block_rows, panel_classes, panels;
};

// y = a b + bias, or y += a b.
onednn::Execution product(const onednn::MemoryDesc& a, const onednn::MemoryDesc& b,
                          const std::optional<onednn::MemoryDesc>& bias,
                          const onednn::MemoryDesc& y, bool add) {
  const onednn::PrimitiveDesc desc = onednn::matmul(a, b, bias, y, add);
  CONCORD_CHECK(desc, "oneDNN has no product of {} bytes", y.get_size());
  return {desc, {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, bias ? DNNL_ARG_BIAS : 0, DNNL_ARG_DST}};
}

// Of a block of rows and a panel of classes: logits = x w^T + bias, dx += dlogits w, and dw +=
// dlogits^T x. Each runs on (left factor, right factor, bias or null, product, scratchpad).
struct Products {
  onednn::Execution logits, dx, dw;

  std::size_t scratchpad_bytes() const {
    return std::max({logits.scratchpad_bytes(), dx.scratchpad_bytes(), dw.scratchpad_bytes()});
  }
};

Products make_products(const Sizes& sizes, std::int64_t width, bool has_bias) {
  const auto matrix = [](std::int64_t rows, std::int64_t columns, bool transposed = false) {
    return onednn::matrices({DType::kF32, {rows, columns}}, transposed);
  };
  const std::int64_t rows = sizes.block_rows, features = sizes.features;
  std::optional<onednn::MemoryDesc> bias;
  if (has_bias) bias = matrix(1, width);
  return {.logits = product(matrix(rows, features), matrix(width, features, true), bias,
                            matrix(rows, width), false),
          .dx = product(matrix(rows, width), matrix(width, features), std::nullopt,
                        matrix(rows, features), true),
          .dw = product(matrix(rows, width, true), matrix(rows, features), std::nullopt,
                        matrix(width, features), true)};
}

// The operands of both ops: inputs x, w, labels, weight and, perhaps, bias, before them dL/dloss
// for the backward op; outputs loss and correct and, of the backward op, dx, dw and, perhaps,
// dbias.
class LinearCrossEntropy final : public Kernel {
 public:
  LinearCrossEntropy(const Signature& s, bool has_gradients)
      : first_(has_gradients ? 1 : 0),
        has_bias_(s.inputs.size() == first_ + 5),
        sizes_(std::span(s.inputs).subspan(first_)),
        smoothing_(s.node.attributes.real("label_smoothing")),
        ignored_(ops::ignored_label(s.node)),
        whole_(make_products(sizes_, sizes_.panel_classes, has_bias_)),
        last_(make_products(sizes_, sizes_.width(sizes_.panels - 1), has_bias_)) {
    const auto take = [this](std::int64_t count, std::size_t element_size) {
      const std::size_t offset = scratchpad_bytes_;
      scratchpad_bytes_ += (static_cast<std::size_t>(count) * element_size + 63) / 64 * 64;
      return offset;
    };
    const std::int64_t rows = sizes_.block_rows, features = sizes_.features;
    const std::int64_t kept = has_gradients ? sizes_.classes : sizes_.panel_classes;
    logits_ = take(rows * kept, sizeof(float));
    x_ = take(rows * features, sizeof(float));
    dx_ = take(rows * features, sizeof(float));
    sums_ = take(rows, sizeof(RowSums));
    counted_ = take(sizes_.rows, sizeof(std::int32_t));
    onednn_ = scratchpad_bytes_;
    scratchpad_bytes_ += std::max(whole_.scratchpad_bytes(), last_.scratchpad_bytes());
  }
  std::size_t scratchpad_bytes() const override { return scratchpad_bytes_; }

  void run(std::span<std::byte* const> operands) override {
    const Memory m = memory(operands);
    const std::int64_t rows = count_rows(m);
    double loss = 0, correct = 0;
    // Where no row counts, a block of none writes the gradients: zeros.
    for (std::int64_t begin = 0; begin == 0 || begin < rows; begin += sizes_.block_rows) {
      const Block block{m.counted + begin, std::min(rows - begin, sizes_.block_rows), begin == 0};
      load(m, block);
      add_up_logits(m, block);
      if (has_gradients()) add_gradients(m, block);
      for (std::int64_t r = 0; r < block.count; ++r) {
        loss += row_loss(m.sums[r]);
        correct += m.sums[r].is_correct() ? 1 : 0;
      }
    }
    *m.loss = static_cast<float>(loss * m.weight);
    *m.correct = static_cast<float>(correct);
  }

 private:
  struct Memory {
    float *x, *w, *bias;
    const std::int32_t* labels;
    float weight, dloss;
    float *loss, *correct, *dx, *dw, *dbias;
    // In the scratchpad:
    float* logits;  // of a panel after the other [panels][block rows, panel classes], or one
    float *block_x, *block_dx;  // [block rows, features]
    RowSums* sums;              // [block rows]
    std::int32_t* counted;      // the rows whose label is not ignored
    std::byte* onednn;
  };
  // Rows of x that are computed together; what is missing to a whole block is zeros.
  struct Block {
    const std::int32_t* rows;
    std::int64_t count;
    bool is_first;
  };

  bool has_gradients() const { return first_ == 1; }

  Memory memory(std::span<std::byte* const> operands) const {
    std::byte* const* layer = operands.data() + first_;
    std::byte* const* outputs = layer + (has_bias_ ? 5 : 4);
    std::byte* scratchpad = operands.back();
    Memory m{};
    m.x = as<float>(layer[0]);
    m.w = as<float>(layer[1]);
    m.labels = as<std::int32_t>(layer[2]);
    m.weight = *as<float>(layer[3]);
    m.loss = as<float>(outputs[0]);
    m.correct = as<float>(outputs[1]);
    if (has_bias_) m.bias = as<float>(layer[4]);
    if (has_gradients()) {
      m.dloss = *as<float>(operands[0]);
      m.dx = as<float>(outputs[2]);
      m.dw = as<float>(outputs[3]);
      if (has_bias_) m.dbias = as<float>(outputs[4]);
    }
    m.logits = as<float>(scratchpad + logits_);
    m.block_x = as<float>(scratchpad + x_);
    m.block_dx = as<float>(scratchpad + dx_);
    m.sums = as<RowSums>(scratchpad + sums_);
    m.counted = as<std::int32_t>(scratchpad + counted_);
    m.onednn = scratchpad + onednn_;
    return m;
  }

  // Lists the rows that count; the others have no gradient.
  std::int64_t count_rows(const Memory& m) const {
    std::int64_t count = 0;
    for (std::int64_t row = 0; row < sizes_.rows; ++row) {
      if (m.labels[row] != ignored_) {
        m.counted[count++] = static_cast<std::int32_t>(row);
      } else if (has_gradients()) {
        std::fill_n(m.dx + row * sizes_.features, sizes_.features, 0.0f);
      }
    }
    return count;
  }

  void load(const Memory& m, const Block& block) const {
    const std::int64_t features = sizes_.features;
    for (std::int64_t r = 0; r < block.count; ++r) {
      std::copy_n(m.x + block.rows[r] * features, features, m.block_x + r * features);
      m.sums[r] = RowSums();
    }
    std::fill(m.block_x + block.count * features, m.block_x + sizes_.block_rows * features, 0.0f);
  }

  Products& products(std::int64_t panel) { return panel == sizes_.panels - 1 ? last_ : whole_; }
  float* panel_logits(const Memory& m, std::int64_t panel) const {
    return m.logits + (has_gradients() ? panel * sizes_.panel_classes * sizes_.block_rows : 0);
  }
  // Of w, or of its gradient.
  float* panel_of(float* w, std::int64_t panel) const {
    return w + panel * sizes_.panel_classes * sizes_.features;
  }
  float* panel_of_bias(float* bias, std::int64_t panel) const {
    return bias == nullptr ? nullptr : bias + panel * sizes_.panel_classes;
  }
  void multiply(onednn::Execution& product, float* a, float* b, float* bias, float* y,
                const Memory& m) const {
    const auto bytes = [](float* data) { return reinterpret_cast<std::byte*>(data); };
    product.run(std::array{bytes(a), bytes(b), bytes(bias), bytes(y), m.onednn});
  }
  // Calls f(row of the block, its logits of the panel).
  template <typename F>
  void for_each_row(std::int64_t count, const Memory& m, std::int64_t panel, F f) const {
    const std::int64_t width = sizes_.width(panel);
    parallel_for(count, std::max<std::int64_t>(1, kGrain / width),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) {
                     f(r, panel_logits(m, panel) + r * width);
                   }
                 });
  }

  void add_up_logits(const Memory& m, const Block& block) {
    const auto add_to_row = HWY_DYNAMIC_DISPATCH(AddToRow);
    for (std::int64_t panel = 0; panel < sizes_.panels; ++panel) {
      multiply(products(panel).logits, m.block_x, panel_of(m.w, panel),
               panel_of_bias(m.bias, panel), panel_logits(m, panel), m);
      for_each_row(block.count, m, panel, [&](std::int64_t r, const float* logits) {
        const std::int64_t label = m.labels[block.rows[r]] - panel * sizes_.panel_classes;
        add_to_row(logits, static_cast<std::size_t>(sizes_.width(panel)), label, m.sums[r]);
      });
    }
  }

  // ln sum_j e^x_j - sum_j t_j x_j, with every x measured from the largest.
  double row_loss(const RowSums& row) const {
    const double largest = row.largest;
    const double mean = row.total / static_cast<double>(sizes_.classes);
    return std::log(row.exponentials) - (1 - smoothing_) * (row.labelled - largest) -
           smoothing_ * (mean - largest);
  }

  // Panels in reverse: those computed last are in the cache.
  void add_gradients(const Memory& m, const Block& block) {
    const std::int64_t features = sizes_.features;
    std::fill_n(m.block_dx, sizes_.block_rows * features, 0.0f);
    for (std::int64_t panel = sizes_.panels - 1; panel >= 0; --panel) {
      turn_into_gradients(m, block, panel);
      float* dlogits = panel_logits(m, panel);
      float* dw = panel_of(m.dw, panel);
      if (block.is_first) std::fill_n(dw, sizes_.width(panel) * features, 0.0f);
      multiply(products(panel).dx, dlogits, panel_of(m.w, panel), nullptr, m.block_dx, m);
      multiply(products(panel).dw, dlogits, m.block_x, nullptr, dw, m);
      if (has_bias_) add_to_bias(m, block, panel);
    }
    for (std::int64_t r = 0; r < block.count; ++r) {
      std::copy_n(m.block_dx + r * features, features, m.dx + block.rows[r] * features);
    }
  }

  // dlogits_j = dL/dloss * weight * (p_j - t_j); NaN for a label outside the classes.
  void turn_into_gradients(const Memory& m, const Block& block, std::int64_t panel) const {
    const auto gradient = HWY_DYNAMIC_DISPATCH(Gradient);
    const std::int64_t width = sizes_.width(panel);
    const double g = double{m.dloss} * m.weight;
    const auto other = static_cast<float>(g * smoothing_ / static_cast<double>(sizes_.classes));
    for_each_row(sizes_.block_rows, m, panel, [&](std::int64_t r, float* logits) {
      if (r >= block.count) {
        std::fill_n(logits, width, 0.0f);
        return;
      }
      const RowSums& row = m.sums[r];
      const std::int64_t label = m.labels[block.rows[r]];
      const bool is_class = label >= 0 && label < sizes_.classes;
      const double factor = is_class ? g / row.exponentials : std::nan("");
      gradient(logits, static_cast<std::size_t>(width), row.largest, static_cast<float>(factor),
               other);
      const std::int64_t place = label - panel * sizes_.panel_classes;
      if (place >= 0 && place < width) logits[place] -= static_cast<float>(g * (1 - smoothing_));
    });
  }

  void add_to_bias(const Memory& m, const Block& block, std::int64_t panel) const {
    const std::int64_t width = sizes_.width(panel);
    const float* dlogits = panel_logits(m, panel);
    float* dbias = panel_of_bias(m.dbias, panel);
    if (block.is_first) std::fill_n(dbias, width, 0.0f);
    for (std::int64_t r = 0; r < block.count; ++r) {
      apply(BinaryFunction::kAdd, {dbias, 1}, {dlogits + r * width, 1}, dbias, width);
    }
  }

  std::size_t first_;  // operand of the layer
  bool has_bias_;
  Sizes sizes_;
  double smoothing_;
  std::optional<std::int64_t> ignored_;
  Products whole_, last_;  // of all panels but the last, and of that
  // Offsets in the scratchpad.
  std::size_t logits_, x_, dx_, sums_, counted_, onednn_;
  std::size_t scratchpad_bytes_ = 0;
};

const RegisterKernelRule linear_cross_entropy{{
    .op = "linear_cross_entropy",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<LinearCrossEntropy>(s, /*has_gradients=*/false);
    },
}};

const RegisterKernelRule linear_cross_entropy_backward{{
    .op = "linear_cross_entropy_backward",
    .make = [](const Signature& s, KernelPolicy&) -> std::unique_ptr<Kernel> {
      expect_f32(s);
      return std::make_unique<LinearCrossEntropy>(s, /*has_gradients=*/true);
    },
}};

}  // namespace
}  // namespace concord::cpu
#endif
