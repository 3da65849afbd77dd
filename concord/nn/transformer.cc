#include "concord/nn/transformer.h"

#include "concord/base/error.h"
#include "concord/ops/shape_ops.h"

namespace concord::nn {

Transformer::Transformer(const ModelCall& call, std::int64_t length)
    : builder_(call.builder),
      call_(call),
      options_(call.options),
      samples_(builder_.shape(call.x)[0]),
      length_(length) {
  if (options_.width < 1 || options_.heads < 1 || options_.width % options_.heads != 0) {
    fail(
        "model.width = {} does not fall into model.heads = {} heads of equal size: expected a "
        "multiple of the heads",
        options_.width, options_.heads);
  }
}

ValueId Transformer::rows(ValueId x) {
  return ops::reshape(builder_, x, {samples_ * length_, options_.width});
}

ValueId Transformer::heads(ValueId rows) {
  return ops::reshape(builder_, rows, {samples_, length_, -1, options_.width / options_.heads});
}

ValueId Transformer::vectors(std::string_view name, std::int64_t entries) {
  const auto scope = builder_.scope(name);
  return builder_.state("weight", {DType::kF32, {entries, options_.width}}, State::Role::kParameter,
                        kNormal);
}

ValueId Transformer::project(std::string_view name, ValueId rows, std::int64_t width) {
  return linear(builder_, name, rows, width, kNormal);
}

ValueId Transformer::drop(std::string_view name, ValueId rows) {
  if (options_.dropout == 0) return rows;
  const Shape shape = builder_.shape(rows);
  const ValueId x = ops::reshape(builder_, rows, {samples_, -1});
  return ops::reshape(builder_, dropout(builder_, name, x, options_.dropout, call_.context), shape);
}

std::int64_t Transformer::hidden_units() const {
  return options_.mlp == 0 ? 4 * options_.width : options_.mlp;
}

}  // namespace concord::nn
