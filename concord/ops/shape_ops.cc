#include "concord/ops/shape_ops.h"

#include "concord/ops/placement_rules.h"
#include "concord/ops/rules.h"
#include "concord/ops/step.h"

namespace concord::ops {
namespace {

Cost moves_only(const Node&, std::span<const TensorType>, std::span<const TensorType>) {
  return {};
}

Signatures placed_reshape(const PlacementContext& context) {
  Signatures found = {all_partial(context)};
  const Shape &x = context.input(0), &y = context.output(0);
  for (int d = 0; d < x.rank(); ++d) {
    for (const std::vector<std::int64_t>& sections : context.sections(0, d)) {
      const Placement split = Placement::split(d, sections);
      if (const auto to = reshaped_split(x, split, y)) found.push_back({{split}, {*to}});
    }
  }
  for (int d = 0; d < y.rank(); ++d) {
    for (const std::vector<std::int64_t>& sections : context.sections(context.of_output(0), d)) {
      const Placement split = Placement::split(d, sections);
      if (const auto from = reshaped_split(y, split, x)) found.push_back({{*from}, {split}});
    }
  }
  return found;
}

Signatures placed_transpose(const PlacementContext& context) {
  Signatures found = {all_partial(context)};
  const std::vector<std::int64_t>& permutation = context.node.attributes.integers("permutation");
  for (int d = 0; d < context.output(0).rank(); ++d) {
    const auto from = static_cast<int>(permutation[static_cast<std::size_t>(d)]);
    add_splits(found, context, {{0, from}, {context.of_output(0), d}});
  }
  return found;
}

// Of ops that put together, or take apart, along attribute "dim": any other dim may be split.
Signatures placed_along_others(const PlacementContext& context) {
  Signatures found = {all_partial(context)};
  for (int d = 0; d < context.output(0).rank(); ++d) {
    if (d == context.node.attributes.integer("dim")) continue;
    std::vector<std::pair<std::size_t, int>> all;
    for (std::size_t o = 0; o < context.inputs.size() + context.outputs.size(); ++o) {
      all.emplace_back(o, d);
    }
    add_splits(found, context, all);
  }
  return found;
}

const RegisterOp reshape_op{{
    .name = "reshape",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape shape(node.attributes.integers("shape"));
      for (const std::int64_t extent : shape) {
        if (extent < 0) fail("{} is not a shape", to_string(shape));
      }
      if (shape.elements() != inputs[0].shape.elements()) {
        fail("{} has {} elements, {} has {}", to_string(inputs[0].shape),
             inputs[0].shape.elements(), to_string(shape), shape.elements());
      }
      return {{inputs[0].dtype, shape}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      return {reshape(context.builder, context.output_gradient(0),
                      context.builder.shape(context.input(0)))};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
    .signatures = placed_reshape,
    .localize = localize_shape,
}};

const RegisterOp transpose_op{{
    .name = "transpose",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape& from = inputs[0].shape;
      const std::vector<std::int64_t>& permutation = node.attributes.integers("permutation");
      std::vector<bool> used(static_cast<std::size_t>(from.rank()), false);
      std::vector<std::int64_t> dims;
      for (const std::int64_t p : permutation) {
        if (p < 0 || p >= from.rank() || used[static_cast<std::size_t>(p)]) break;
        used[static_cast<std::size_t>(p)] = true;
        dims.push_back(from[static_cast<int>(p)]);
      }
      if (dims.size() != used.size() || dims.size() != permutation.size()) {
        fail("{} is not a permutation of the dims of {}", to_string(Shape(permutation)),
             to_string(from));
      }
      return {{inputs[0].dtype, Shape(std::move(dims))}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const std::vector<std::int64_t>& permutation =
          context.node.attributes.integers("permutation");
      std::vector<std::int64_t> inverse(permutation.size());
      for (std::size_t i = 0; i < permutation.size(); ++i) {
        inverse[static_cast<std::size_t>(permutation[i])] = static_cast<std::int64_t>(i);
      }
      return {transpose(context.builder, context.output_gradient(0), inverse)};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
    .signatures = placed_transpose,
}};

const RegisterOp concat_op{{
    .name = "concat",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      if (inputs.empty()) fail("expected at least one value");
      const int dim = checked_dim(inputs[0].shape, node.attributes.integer("dim"));
      std::int64_t extent = 0;
      for (const TensorType& input : inputs) {
        if (input.dtype != inputs[0].dtype || input.shape.rank() != inputs[0].shape.rank() ||
            input.shape.with(dim, 0) != inputs[0].shape.with(dim, 0)) {
          fail("{} and {} differ in more than dim {}", to_string(inputs[0]), to_string(input), dim);
        }
        extent += input.shape[dim];
      }
      return {{inputs[0].dtype, inputs[0].shape.with(dim, extent)}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const std::int64_t dim = context.node.attributes.integer("dim");
      std::vector<ValueId> gradients;
      std::int64_t begin = 0;
      for (const ValueId input : context.node.inputs) {
        const std::int64_t end = begin + context.builder.shape(input)[static_cast<int>(dim)];
        gradients.push_back(slice(context.builder, context.output_gradient(0), dim, begin, end));
        begin = end;
      }
      return gradients;
    },
    .cost = moves_only,
    .bf16 = {.use = Bf16Form::Use::kFollows, .inputs = ~0u},
    .signatures = placed_along_others,
}};

// Attributes: dim, extents. One output for each extent.
const RegisterOp split_op{{
    .name = "split",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape& from = inputs[0].shape;
      const int dim = checked_dim(from, node.attributes.integer("dim"));
      const std::vector<std::int64_t>& extents = node.attributes.integers("extents");
      std::int64_t rest = from[dim];
      std::vector<TensorType> outputs;
      for (const std::int64_t extent : extents) {
        if (extent < 0 || extent > rest) break;
        rest -= extent;
        outputs.push_back({inputs[0].dtype, from.with(dim, extent)});
      }
      if (outputs.empty() || outputs.size() != extents.size() || rest != 0) {
        fail("the extents {} do not fill dim {} of {}", to_string(Shape(extents)), dim,
             to_string(from));
      }
      return outputs;
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      GraphBuilder& b = context.builder;
      std::vector<ValueId> gradients(context.output_gradients.begin(),
                                     context.output_gradients.end());
      for (std::size_t i = 0; i < gradients.size(); ++i) {
        if (gradients[i] == kNoValue) gradients[i] = constant(b, b.type(context.output(i)), 0.0);
      }
      return {concat(b, gradients, context.node.attributes.integer("dim"))};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
    .signatures = placed_along_others,
}};

const RegisterOp slice_op{{
    .name = "slice",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape& from = inputs[0].shape;
      const int dim = checked_dim(from, node.attributes.integer("dim"));
      const std::int64_t begin = node.attributes.integer("begin");
      const std::int64_t end = node.attributes.integer("end");
      if (begin < 0 || begin > end || end > from[dim]) {
        fail("[{}, {}) does not lie in dim {} of {}", begin, end, dim, to_string(from));
      }
      return {{inputs[0].dtype, from.with(dim, end - begin)}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const Attributes& attributes = context.node.attributes;
      const std::int64_t dim = attributes.integer("dim");
      return {pad_slice(context.builder, context.output_gradient(0), dim,
                        attributes.integer("begin"),
                        context.builder.shape(context.input(0))[static_cast<int>(dim)])};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
    .signatures = placed_along_others,
}};

const RegisterOp pad_slice_op{{
    .name = "pad_slice",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      const Shape& from = inputs[0].shape;
      const int dim = checked_dim(from, node.attributes.integer("dim"));
      const std::int64_t begin = node.attributes.integer("begin");
      const std::int64_t extent = node.attributes.integer("extent");
      if (begin < 0 || begin > extent || from[dim] > extent - begin) {
        fail("{} from index {} on does not fit {} indices of dim {}", to_string(from), begin,
             extent, dim);
      }
      return {{inputs[0].dtype, from.with(dim, extent)}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const Attributes& attributes = context.node.attributes;
      const std::int64_t dim = attributes.integer("dim");
      const std::int64_t begin = attributes.integer("begin");
      return {slice(context.builder, context.output_gradient(0), dim, begin,
                    begin + context.builder.shape(context.input(0))[static_cast<int>(dim)])};
    },
    .cost = moves_only,
    .bf16 = follows_bf16(),
    .signatures = placed_along_others,
}};

// Inputs x, start. Attributes: dim, extent.
const RegisterOp dynamic_slice_op{{
    .name = "dynamic_slice",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 2);
      expect_position(inputs[1], "start");
      const Shape& from = inputs[0].shape;
      const int dim = checked_dim(from, node.attributes.integer("dim"));
      expect_inside(0, node.attributes.integer("extent"), from[dim]);
      return {{inputs[0].dtype, from.with(dim, node.attributes.integer("extent"))}};
    },
    .cost = moves_only,
}};

// Inputs x, part, start. Attribute: dim.
const RegisterOp dynamic_update_slice_op{{
    .name = "dynamic_update_slice",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 3);
      expect_position(inputs[2], "start");
      const TensorType &x = inputs[0], &part = inputs[1];
      const int dim = checked_dim(x.shape, node.attributes.integer("dim"));
      if (part.dtype != x.dtype || part.shape.rank() != x.shape.rank() ||
          part.shape.with(dim, x.shape[dim]) != x.shape) {
        fail("{} and {} differ in more than dim {}", to_string(x), to_string(part), dim);
      }
      expect_inside(0, part.shape[dim], x.shape[dim]);
      return {x};
    },
    .cost = moves_only,
}};

const RegisterOp cast_op{{
    .name = "cast",
    .infer = [](const Node& node, std::span<const TensorType> inputs) -> std::vector<TensorType> {
      expect_inputs(inputs, 1);
      return {{dtype_named(node.attributes.text("dtype")), inputs[0].shape}};
    },
    .gradient = [](GradientContext& context) -> std::vector<ValueId> {
      const DType from = context.builder.type(context.input(0)).dtype;
      const DType to = context.builder.type(context.output(0)).dtype;
      if (!is_floating(from) || !is_floating(to)) return {kNoValue};
      return {cast(context.builder, context.output_gradient(0), from)};
    },
    .cost = moves_only,
    .by_number = true,
    .signatures = elementwise,
}};

// `shape` with its -1, if it has one, worked out.
Shape completed(const Shape& shape, std::int64_t elements) {
  std::int64_t known = 1;
  int missing = -1;
  for (int d = 0; d < shape.rank(); ++d) {
    if (shape[d] != -1) {
      known *= shape[d];
    } else if (missing == -1) {
      missing = d;
    } else {
      fail("reshape: {} leaves more than one extent open", to_string(shape));
    }
  }
  if (missing == -1) return shape;
  if (known <= 0 || elements % known != 0) {
    fail("reshape: {} elements do not fill {}", elements, to_string(shape));
  }
  return shape.with(missing, elements / known);
}

}  // namespace

ValueId reshape(GraphBuilder& builder, ValueId x, Shape shape) {
  shape = completed(shape, builder.shape(x).elements());
  if (builder.shape(x) == shape) return x;
  return builder.node1("reshape", {x}, {{"shape", shape.dims()}});
}

ValueId transpose(GraphBuilder& builder, ValueId x, const std::vector<std::int64_t>& permutation) {
  return builder.node1("transpose", {x}, {{"permutation", permutation}});
}

ValueId concat(GraphBuilder& builder, const std::vector<ValueId>& values, std::int64_t dim) {
  if (!values.empty()) dim = checked_dim(builder.shape(values[0]), dim);
  return builder.node1("concat", values, {{"dim", dim}});
}

ValueId slice(GraphBuilder& builder, ValueId x, std::int64_t dim, std::int64_t begin,
              std::int64_t end) {
  return builder.node1(
      "slice", {x},
      {{"dim", std::int64_t{checked_dim(builder.shape(x), dim)}}, {"begin", begin}, {"end", end}});
}

std::vector<ValueId> split(GraphBuilder& builder, ValueId x, std::int64_t dim,
                           const std::vector<std::int64_t>& extents) {
  return builder.node(
      "split", {x},
      {{"dim", std::int64_t{checked_dim(builder.shape(x), dim)}}, {"extents", extents}});
}

ValueId pad_slice(GraphBuilder& builder, ValueId x, std::int64_t dim, std::int64_t begin,
                  std::int64_t extent) {
  return builder.node1("pad_slice", {x},
                       {{"dim", std::int64_t{checked_dim(builder.shape(x), dim)}},
                        {"begin", begin},
                        {"extent", extent}});
}

ValueId dynamic_slice(GraphBuilder& builder, ValueId x, ValueId start, std::int64_t dim,
                      std::int64_t extent) {
  return builder.node1(
      "dynamic_slice", {x, start},
      {{"dim", std::int64_t{checked_dim(builder.shape(x), dim)}}, {"extent", extent}});
}

ValueId dynamic_update_slice(GraphBuilder& builder, ValueId x, ValueId part, ValueId start,
                             std::int64_t dim) {
  return builder.node1("dynamic_update_slice", {x, part, start},
                       {{"dim", std::int64_t{checked_dim(builder.shape(x), dim)}}});
}

void expect_inside(std::int64_t start, std::int64_t count, std::int64_t extent) {
  if (start < 0 || count < 0 || start > extent || count > extent - start) {
    fail("{} indices from {} on do not lie in a dim of {}", count, start, extent);
  }
}

ValueId cast(GraphBuilder& builder, ValueId x, DType dtype) {
  if (builder.type(x).dtype == dtype) return x;
  return builder.node1("cast", {x}, {{"dtype", std::string(to_string(dtype))}});
}

}  // namespace concord::ops
