// What the transformers of the zoo (Vaswani et al. 2017) have in common; private to nn/.
#pragma once

#include "concord/nn/zoo.h"

namespace concord::nn {

// Writes a model of N sequences of T vectors each, of model.width numbers. Between the layers they
// are rows, [N T, width].
class Transformer {
 protected:
  // Throws Error unless model.heads divides model.width.
  Transformer(const ModelCall& call, std::int64_t length);

  // [N, T, ...] of `width` numbers for each vector, as rows.
  ValueId rows(ValueId x);
  // Rows of heads one after the other, as attention takes them: [N, T, heads, width / heads].
  ValueId heads(ValueId rows);

  // A table of vectors, for tokens, positions and the like: the state weight [entries, width].
  ValueId vectors(std::string_view name, std::int64_t entries);
  // A linear layer whose weight starts as the vectors do.
  ValueId project(std::string_view name, ValueId rows, std::int64_t width);
  // Dropout of rows, whose draws count them by samples: they are the same in any microbatch.
  ValueId drop(std::string_view name, ValueId rows);

  // Units of a feed-forward network.
  std::int64_t hidden_units() const;

  // Radford et al. 2019 and Devlin et al. 2019: weights start normal with this deviation.
  static constexpr Initializer kNormal{Initializer::Kind::kNormal, 0.02};

  GraphBuilder& builder_;
  const ModelCall& call_;
  const ModelOptions& options_;
  std::int64_t samples_, length_;
};

}  // namespace concord::nn
