// The cross-entropy of rows whose classes several ranks divide among themselves, without any of
// them having all logits (Shoeybi et al. 2019, "Megatron-LM", section 3): each rank knows of its
// classes the largest logit of a row, then sums over them; what the ranks know is put together by
// two all_reduces of a few numbers for each row. Ops of one rank's part, which the placement rules
// of ops/softmax.h and ops/linear_cross_entropy.h build with. None has a gradient.
//
// Logits [..., C] are a rank's part, C consecutive classes of all; labels [...] are of all classes.
#pragma once

#include <cstdint>
#include <optional>

#include "concord/graph/builder.h"
#include "concord/graph/op.h"

namespace concord::ops {

// The largest logit of each row, [...]; NaN where the row has one.
inline constexpr std::string_view kLargestOfRow = "largest_of_row";

// Inputs logits, the largest logits of all classes, labels. Attributes: first, the class of the
// first logit; classes, how many there are in all; ignore_label. Output [..., 4], for each row the
// sums over this part's classes of the numbers below; zeros for ignored rows.
inline constexpr std::string_view kClassSums = "class_sums";
enum class ClassSum : std::uint8_t {
  kExponentials,  // e^(x_j - largest)
  kDistances,     // x_j - largest
  kLabelled,      // x_label - largest, of the label alone
  kIsCorrect,     // 1 where x_label = largest, and -1 for each class before it with x_j = largest
};
inline constexpr std::int64_t kClassSumCount = 4;

// Inputs the sums over all classes, labels, weight. Attributes: those of softmax_cross_entropy, and
// classes. Output: the loss.
inline constexpr std::string_view kCrossEntropyOfSums = "cross_entropy_of_sums";

// Inputs the sums over all classes, labels. Attributes: only_finite, 1 where a row whose
// exponentials are not finite is never correct, and ignore_label. Output: how many rows are.
inline constexpr std::string_view kCountCorrectOfSums = "count_correct_of_sums";

// Inputs logits, the largest logits and the sums of all classes, labels. Attribute ignore_label.
// Output: the probabilities of this part's classes; zeros in ignored rows.
inline constexpr std::string_view kSoftmaxOfSums = "softmax_of_sums";

// What the ranks along an axis know of their logits, [..., C of all / ranks], together: adds what
// computes it, or finds it where the op or its gradient has been computed before.
struct SplitClasses {
  GraphBuilder& builder;
  AxisPlace axis;
  std::int64_t classes;  // of all ranks
  ValueId logits, labels;
  Attributes cross_entropy;  // label_smoothing, ignore_label; of a count the latter alone
  ValueId largest, sums;

  ValueId loss(ValueId weight) const;
  ValueId correct(bool only_finite) const;
  ValueId probabilities() const;
};
SplitClasses split_classes(LocalContext& context, ValueId logits, ValueId labels,
                           std::int64_t classes);

// Attributes of an op on such a part of the classes: those of the node, first and classes.
Attributes attributes_of_part(const LocalContext& context, std::int64_t classes);

// Bytes that a rank sends for what `rows` rows need.
double bytes_of_split_classes(std::int64_t rows, int ranks);

}  // namespace concord::ops
