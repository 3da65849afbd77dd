// Cross-entropy of a linear layer in blocks of rows by panels of classes.
//
// One block of rows at a time: panel by panel its logits are computed, and while a panel is in the
// cache, their exponentials are written down, measured from the largest logit of the row so far,
// and the sums that softmax needs (Milakov, Gimelshein 2018) are brought up to date. Then, panel by
// panel, the exponentials are scaled into gradients of the logits, which are multiplied into dx and
// dw while they are in the cache. So of all exponentials those of one block are kept, and three
// products are computed where keeping none would take four. Without gradients only a panel is kept.
//
// Of x and w in bf16, products and softmax are still added up in f32; the exponentials that are
// kept, and the gradients of the logits, are bf16.
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
#include "concord/kernels/cpu/operands.h"
#include "concord/kernels/cpu/product.h"
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

// Adds the row's logits x of one more panel, and writes y_j = e^(x_j - row.largest). `label`: the
// label's place in it, if it has one. NaN anywhere makes the exponentials NaN.
template <typename T>
HWY_INLINE void add_to_row(const float* x, std::size_t classes, std::int64_t label, RowSums& row,
                           T* y) {
  if (label >= 0 && label < static_cast<std::int64_t>(classes)) {
    row.labelled = x[label];
    row.before_labelled = std::max(row.largest, largest_of(x, static_cast<std::size_t>(label)));
  }
  const float largest = std::max(row.largest, largest_of(x, classes));
  Sum exponentials, total;
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int k) {
    const V below = hn::Sub(load(x + i, n, kLowest), splat(largest));
    const V e = exp_below_zero(D(), below);
    exponentials.add(k, e);
    total.add(k, load(x + i, n));
    store(e, y + i, n);
  });
  if (largest > row.largest) row.exponentials *= std::exp(double{row.largest} - largest);
  row.exponentials += exponentials.total();
  row.total += total.total();
  row.largest = largest;
}

// y = factor * x - other.
template <typename T>
HWY_INLINE void scale_row(const T* x, std::size_t classes, float factor, float other, T* y) {
  for_each_vector(classes, [&](std::size_t i, std::size_t n, int) {
    store(hn::MulSub(splat(factor), load(x + i, n), splat(other)), y + i, n);
  });
}

void AddToRow(const float* x, std::size_t classes, std::int64_t label, RowSums& row, float* y) {
  add_to_row(x, classes, label, row, y);
}
void AddToRowBF16(const float* x, std::size_t classes, std::int64_t label, RowSums& row, BF16* y) {
  add_to_row(x, classes, label, row, y);
}
void ScaleRow(const float* x, std::size_t classes, float factor, float other, float* y) {
  scale_row(x, classes, factor, other, y);
}
void ScaleRowBF16(const BF16* x, std::size_t classes, float factor, float other, BF16* y) {
  scale_row(x, classes, factor, other, y);
}

}  // namespace
}  // namespace concord::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace concord::cpu {

HWY_EXPORT(AddToRow);
HWY_EXPORT(AddToRowBF16);
HWY_EXPORT(ScaleRow);
HWY_EXPORT(ScaleRowBF16);

namespace {

// The most rows of a block and classes of a panel. Each block reads w twice and reads and writes
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
      : dtype(layer[0].type.dtype),
        rows(layer[0].type.shape[0]),
        features(layer[0].type.shape[1]),
        classes(layer[1].type.shape[0]),
        block_rows(part_size(rows, kBlockRows, 1)),
        panel_classes(part_size(classes, kPanelClasses, 16)),
        panels((classes + panel_classes - 1) / panel_classes) {}

  // Classes of a panel: the last may be narrower.
  std::int64_t width(std::int64_t panel) const {
    return std::min(panel_classes, classes - panel * panel_classes);
  }

  DType dtype;  // of x and w
  std::int64_t rows, features, classes;
  std::int64_t block_rows, panel_classes, panels;
};

// Of a block of rows and a panel of classes: logits = x w^T + bias, dx += dlogits w, and dw =
// dlogits^T x, or += from the second block on.
struct Products {
  std::unique_ptr<Kernel> logits, dx, first_dw, dw;

  std::size_t scratchpad_bytes() const {
    return std::max({logits->scratchpad_bytes(), dx->scratchpad_bytes(),
                     first_dw->scratchpad_bytes(), dw->scratchpad_bytes()});
  }
};

Products make_products(const Sizes& sizes, std::int64_t width, bool has_bias) {
  const DType f32 = DType::kF32;
  const TensorType x{sizes.dtype, {sizes.block_rows, sizes.features}};
  const TensorType w{sizes.dtype, {width, sizes.features}};
  const TensorType logits{f32, {sizes.block_rows, width}}, dlogits{sizes.dtype, logits.shape};
  Product of_logits{.a = x, .b = w, .y = logits, .transpose_b = true};
  if (has_bias) of_logits.bias = {f32, {width}};
  Product of_dw{.a = dlogits, .b = x, .y = {f32, w.shape}, .transpose_a = true};
  Products products{.logits = make_product(of_logits),
                    .dx = make_product({.a = dlogits, .b = w, .y = {f32, x.shape}, .add = true}),
                    .first_dw = make_product(of_dw)};
  of_dw.add = true;
  products.dw = make_product(of_dw);
  return products;
}

// The operands of both ops: inputs x, w, labels, weight and, perhaps, bias, before them dL/dloss
// for the backward op; outputs loss and correct and, of the backward op, dx, dw and, perhaps,
// dbias. T: the element type of x, w and dx; all else is f32.
template <typename T>
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
      scratchpad_bytes_ += aligned(static_cast<std::size_t>(count) * element_size);
      return offset;
    };
    const std::int64_t rows = sizes_.block_rows, features = sizes_.features;
    const std::int64_t kept = has_gradients ? sizes_.panels : 1;
    exponentials_ = take(kept * rows * sizes_.panel_classes, sizeof(T));
    largest_ = take(kept * rows, sizeof(float));
    logits_ = take(rows * sizes_.panel_classes, sizeof(float));
    x_ = take(rows * features, sizeof(T));
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
    T *x, *w;
    float* bias;
    const std::int32_t* labels;
    float weight, dloss;
    float *loss, *correct;
    T* dx;
    float *dw, *dbias;
    // In the scratchpad:
    T* exponentials;  // of a panel after the other [panels][block rows, panel classes], or of one
    float* largest;   // what the exponentials are measured from [panels][block rows], or of one
    float* logits;    // of the panel at hand [block rows, panel classes]
    T* dlogits;       // their gradients, in the same place
    T* block_x;       // [block rows, features]
    float* block_dx;  // [block rows, features]
    RowSums* sums;    // [block rows]
    std::int32_t* counted;  // the rows whose label is not ignored
    std::byte* onednn;
  };
  // Rows of x that are computed together; what is missing to a whole block is zeros.
  struct Block {
    const std::int32_t* rows;
    std::int64_t count;
    bool is_first;
  };
  // The panel of a block.
  struct Panel {
    std::int64_t begin, width;  // classes
    T* exponentials;            // [block rows, width]
    float* largest;             // [block rows]
    Products& products;
  };

  bool has_gradients() const { return first_ == 1; }

  Memory memory(std::span<std::byte* const> operands) const {
    std::byte* const* layer = operands.data() + first_;
    std::byte* const* outputs = layer + (has_bias_ ? 5 : 4);
    std::byte* scratchpad = operands.back();
    Memory m{};
    m.x = as<T>(layer[0]);
    m.w = as<T>(layer[1]);
    m.labels = as<std::int32_t>(layer[2]);
    m.weight = *as<float>(layer[3]);
    m.loss = as<float>(outputs[0]);
    m.correct = as<float>(outputs[1]);
    if (has_bias_) m.bias = as<float>(layer[4]);
    if (has_gradients()) {
      m.dloss = *as<float>(operands[0]);
      m.dx = as<T>(outputs[2]);
      m.dw = as<float>(outputs[3]);
      if (has_bias_) m.dbias = as<float>(outputs[4]);
    }
    m.exponentials = as<T>(scratchpad + exponentials_);
    m.largest = as<float>(scratchpad + largest_);
    m.logits = as<float>(scratchpad + logits_);
    m.dlogits = as<T>(scratchpad + logits_);
    m.block_x = as<T>(scratchpad + x_);
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
        std::fill_n(m.dx + row * sizes_.features, sizes_.features, T());
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
    std::fill(m.block_x + block.count * features, m.block_x + sizes_.block_rows * features, T());
  }

  Panel panel(const Memory& m, std::int64_t p) {
    const std::int64_t kept = has_gradients() ? p : 0;
    return {.begin = p * sizes_.panel_classes,
            .width = sizes_.width(p),
            .exponentials = m.exponentials + kept * sizes_.block_rows * sizes_.panel_classes,
            .largest = m.largest + kept * sizes_.block_rows,
            .products = p == sizes_.panels - 1 ? last_ : whole_};
  }
  void multiply(Kernel& product, T* a, T* b, float* bias, float* y, const Memory& m) const {
    const auto bytes = [](auto* data) { return reinterpret_cast<std::byte*>(data); };
    if (bias == nullptr) return product.run(std::array{bytes(a), bytes(b), bytes(y), m.onednn});
    product.run(std::array{bytes(a), bytes(b), bytes(bias), bytes(y), m.onednn});
  }
  // Calls f(row of the block) for rows of a panel.
  template <typename F>
  void for_each_row(std::int64_t count, const Panel& panel, F f) const {
    parallel_for(count, std::max<std::int64_t>(1, kGrain / panel.width),
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t r = begin; r < end; ++r) f(r);
                 });
  }

  void add_up_logits(const Memory& m, const Block& block) {
    const auto add_to_row =
        for_type<T>(HWY_DYNAMIC_DISPATCH(AddToRow), HWY_DYNAMIC_DISPATCH(AddToRowBF16));
    for (std::int64_t i = 0; i < sizes_.panels; ++i) {
      const Panel p = panel(m, i);
      multiply(*p.products.logits, m.block_x, m.w + p.begin * sizes_.features,
               has_bias_ ? m.bias + p.begin : nullptr, m.logits, m);
      for_each_row(block.count, p, [&](std::int64_t r) {
        add_to_row(m.logits + r * p.width, static_cast<std::size_t>(p.width),
                   m.labels[block.rows[r]] - p.begin, m.sums[r], p.exponentials + r * p.width);
        p.largest[r] = m.sums[r].largest;
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
    for (std::int64_t i = sizes_.panels - 1; i >= 0; --i) {
      const Panel p = panel(m, i);
      turn_into_gradients(m, block, p);
      multiply(*p.products.dx, m.dlogits, m.w + p.begin * features, nullptr, m.block_dx, m);
      multiply(block.is_first ? *p.products.first_dw : *p.products.dw, m.dlogits, m.block_x,
               nullptr, m.dw + p.begin * features, m);
      if (has_bias_) add_to_bias(m, block, p);
    }
    for (std::int64_t r = 0; r < block.count; ++r) {
      const float* dx = m.block_dx + r * features;
      T* to = m.dx + block.rows[r] * features;
      if constexpr (std::is_same_v<T, float>) {
        std::copy_n(dx, features, to);
      } else {
        convert(dx, to, features);
      }
    }
  }

  // dlogits_j = dL/dloss * weight * (p_j - t_j); NaN for a label outside the classes.
  void turn_into_gradients(const Memory& m, const Block& block, const Panel& p) const {
    const auto scale_row =
        for_type<T>(HWY_DYNAMIC_DISPATCH(ScaleRow), HWY_DYNAMIC_DISPATCH(ScaleRowBF16));
    const double g = double{m.dloss} * m.weight;
    const double other = g * smoothing_ / static_cast<double>(sizes_.classes);
    for_each_row(sizes_.block_rows, p, [&](std::int64_t r) {
      T* dlogits = m.dlogits + r * p.width;
      if (r >= block.count) {
        std::fill_n(dlogits, p.width, T());
        return;
      }
      const RowSums& row = m.sums[r];
      const std::int64_t label = m.labels[block.rows[r]];
      const bool is_class = label >= 0 && label < sizes_.classes;
      const double factor = is_class ? g / row.exponentials : std::nan("");
      const double rescale = std::exp(double{p.largest[r]} - row.largest);
      scale_row(p.exponentials + r * p.width, static_cast<std::size_t>(p.width),
                static_cast<float>(factor * rescale), static_cast<float>(other), dlogits);
      const std::int64_t place = label - p.begin;
      if (place < 0 || place >= p.width) return;
      // Not from the exponential, whose rounding may be larger than what is left of it.
      const double e = std::exp(double{row.labelled} - row.largest);
      dlogits[place] = T(static_cast<float>(factor * e - other - g * (1 - smoothing_)));
    });
  }

  void add_to_bias(const Memory& m, const Block& block, const Panel& p) const {
    float* dbias = m.dbias + p.begin;
    if (block.is_first) std::fill_n(dbias, p.width, 0.0f);
    for (std::int64_t r = 0; r < block.count; ++r) {
      add_to(dbias, m.dlogits + r * p.width, p.width);
    }
  }

  std::size_t first_;  // operand of the layer
  bool has_bias_;
  Sizes sizes_;
  double smoothing_;
  std::optional<std::int64_t> ignored_;
  Products whole_, last_;  // of all panels but the last, and of that
  // Offsets in the scratchpad.
  std::size_t exponentials_, largest_, logits_, x_, dx_, sums_, counted_, onednn_;
  std::size_t scratchpad_bytes_ = 0;
};

std::unique_ptr<Kernel> make_kernel(const Signature& s, bool has_gradients) {
  const DType dtype = s.inputs[has_gradients ? 1 : 0].type.dtype;
  return with_float_type(dtype, [&](auto zero) -> std::unique_ptr<Kernel> {
    return std::make_unique<LinearCrossEntropy<decltype(zero)>>(s, has_gradients);
  });
}

const RegisterKernelRule linear_cross_entropy{{
    .op = "linear_cross_entropy",
    .make = [](const Signature& s, KernelPolicy&) { return make_kernel(s, false); },
}};

const RegisterKernelRule linear_cross_entropy_backward{{
    .op = "linear_cross_entropy_backward",
    .make = [](const Signature& s, KernelPolicy&) { return make_kernel(s, true); },
}};

}  // namespace
}  // namespace concord::cpu
#endif
