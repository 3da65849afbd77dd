#include "concord/parallel/compress.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/base/text.h"
#include "concord/ops/collective.h"
#include "concord/passes/rewrite.h"

namespace concord::parallel {
namespace {

constexpr std::string_view kResidual = "residual.", kFactor = ".q";

// So many of what lies so, one after another.
Layout stacked(const Layout& layout, const Shape& shape, std::int64_t count) {
  if (layout.is_row_major()) return {};
  std::vector<std::int64_t> dims = {count}, strides = {layout.stored_elements(shape)};
  std::vector<std::int64_t> padded = {count};
  dims.insert(dims.end(), shape.begin(), shape.end());
  strides.insert(strides.end(), layout.strides().begin(), layout.strides().end());
  padded.insert(padded.end(), layout.padded().begin(), layout.padded().end());
  std::vector<Layout::Block> blocks = layout.blocks();
  for (Layout::Block& block : blocks) ++block.dim;
  return Layout(Shape(std::move(dims)), std::move(strides), std::move(padded), std::move(blocks));
}

Shape stacked(const Shape& shape, std::int64_t count) {
  std::vector<std::int64_t> dims = {count};
  dims.insert(dims.end(), shape.begin(), shape.end());
  return Shape(std::move(dims));
}

class Compressor {
 public:
  Compressor(const Graph& source, const Plan& plan, int rank)
      : source_(source),
        plan_(plan),
        data_{std::string(kDataAxis), plan.mesh.extent(kDataAxis),
              plan.mesh.coordinate(rank, kDataAxis)},
        rewriter_(source) {}

  Graph run() {
    for (const CodecRule& rule : plan_.codecs) expect_to_fit(rule.pattern);
    for (const Node& node : source_.nodes) {
      const bool is_alone = data_.ranks == 1 && node.op == "leaf_sum";
      if (!is_alone && !ops::is_of_leaf_sum(source_, node)) {
        rewriter_.copy(node);
        continue;
      }
      const Node& sum = is_alone ? node : source_.node(source_.value(node.inputs[0]).producer);
      const State* const parameter = parameter_of(sum);
      const SumCodec* const codec = parameter == nullptr ? nullptr : codec_of(sum);
      if (is_alone || codec == nullptr) rewriter_.copy(node);
      if (codec != nullptr) encode(sum, node, *parameter, *codec);
    }
    const std::size_t own_states = source_.states.size();
    std::vector<State> kept(graph().states.begin() + static_cast<std::ptrdiff_t>(own_states),
                            graph().states.end());
    graph().states.resize(own_states);
    Graph result = rewriter_.finish();
    result.states.insert(result.states.end(), kept.begin(), kept.end());
    return result;
  }

 private:
  Graph& graph() { return rewriter_.graph(); }

  void expect_to_fit(const std::string& pattern) const {
    std::vector<std::string_view> parameters;
    for (const State& state : source_.states) {
      if (state.role != State::Role::kParameter) continue;
      parameters.push_back(source_.value(state.value).name);
      if (fits_pattern(parameters.back(), pattern)) return;
    }
    fail("parallel.codecs: no parameter fits {}; the nearest is {}", quote(pattern),
         quote(nearest(pattern, parameters)));
  }

  // Whose gradient it sums; null where it is something else.
  const State* parameter_of(const Node& sum) const {
    const auto found = std::ranges::find_if(source_.states, [&](const State& state) {
      return state.role == State::Role::kParameter && source_.value(state.value).name == sum.name;
    });
    if (found == source_.states.end()) return nullptr;
    const TensorType& type = source_.type(sum.inputs[0]);
    const Shape& own = found->flat ? found->flat->type.shape : source_.type(found->value).shape;
    const bool is_encoded =
        type.dtype == DType::kF32 && type.shape == own && type.shape.elements() >= kFewestEncoded;
    return is_encoded ? &*found : nullptr;
  }

  const SumCodec* codec_of(const Node& sum) const {
    const auto rule = std::ranges::find_if(
        plan_.codecs, [&](const CodecRule& one) { return fits_pattern(sum.name, one.pattern); });
    const bool is_encoded = rule != plan_.codecs.end() && !rule->codec.text.empty() &&
                            takes_less(rule->codec, source_.type(sum.inputs[0]).shape);
    return is_encoded ? &rule->codec : nullptr;
  }

  // Factors of a matrix may not.
  static bool takes_less(const SumCodec& codec, const Shape& shape) {
    if (codec.rank == 0) return true;
    const std::int64_t rows = shape.rank() < 2 ? 1 : shape[0];
    const std::int64_t columns = shape.elements() / rows;
    return codec.rank * (rows + columns) < rows * columns;
  }

  // `ends`: what ends the sum now.
  void encode(const Node& sum, const Node& ends, const State& parameter, const SumCodec& codec) {
    const Value& summed = source_.value(sum.inputs[0]);
    Node node{.op = std::string(ops::kEncodedSum),
              .inputs = {rewriter_[sum.outputs[0]]},
              .outputs = {},
              .attributes = {{"axis", data_.name},
                             {"ranks", std::int64_t{data_.ranks}},
                             {"codec", codec.text},
                             {"encoders", plan_.encoders},
                             {"rank", std::int64_t{codec.rank}},
                             {"memories", std::int64_t{codec.memories}},
                             {"way", std::int64_t{codec.encodes_sum ? 1 : 0}},
                             {"bits", bits_of(codec, summed.type.shape)},
                             {"stream", std::int64_t{random_stream("codec." + sum.name)}}},
              .name = sum.name};
    std::vector<Value> outputs = {{.type = summed.type, .layout = summed.layout}};
    const std::size_t first = graph().states.size();
    for (int m = 0; m < codec.memories; ++m) {
      keep(fmt::format("{}{}{}", kResidual, sum.name, m == 0 ? "" : ".velocity"), parameter,
           {DType::kF32, stacked(summed.type.shape, plan_.encoders)},
           stacked(summed.layout, summed.type.shape, plan_.encoders), plan_.encoders);
    }
    if (codec.rank > 0) {
      keep_factor(fmt::format("{}{}{}", kResidual, sum.name, kFactor), parameter,
                  Shape({summed.type.shape.elements() / summed.type.shape[0], codec.rank}));
    } else if (codec.encodes_sum && codec.sum_memories > 0) {
      keep(fmt::format("{}{}.sum", kResidual, sum.name), parameter, summed.type, summed.layout, 0);
    }
    for (std::size_t s = first; s < graph().states.size(); ++s) {
      const Value& value = graph().value(graph().states[s].value);
      node.inputs.push_back(graph().states[s].value);
      outputs.push_back({.type = value.type, .layout = value.layout});
    }
    const std::vector<ValueId> ids = rewriter_.add(std::move(node), outputs);
    for (std::size_t s = first; s < graph().states.size(); ++s) {
      graph().states[s].next = ids[1 + s - first];
    }
    if (ends.op != ops::kReduceScatter) return rewriter_.map(ends.outputs[0], ids[0]);
    Node shard = ends;  // of all of it, this rank's part
    shard.op = std::string(ops::kShard);
    shard.inputs = {ids[0]};
    shard.attributes.set("index", std::int64_t{data_.index});
    rewriter_.map(ends.outputs[0],
                  rewriter_.add(std::move(shard), {source_.value(ends.outputs[0])})[0]);
  }

  // All-reduced, r (n + m) numbers in the place of n m.
  static double bits_of(const SumCodec& codec, const Shape& shape) {
    if (codec.rank == 0) return codec.bits;
    const auto rows = static_cast<double>(shape[0]);
    const double columns = static_cast<double>(shape.elements()) / rows;
    return 32 * codec.rank * (rows + columns) / (rows * columns);
  }

  // All ranks along data have it; those who have other parts of the parameter, another.
  void keep_factor(const std::string& name, const State& parameter, const Shape& shape) {
    State state{.role = State::Role::kOptimizer, .decay = false, .cuts = parameter.cuts};
    for (Cut& cut : state.cuts) cut.split = Placement::split(0);
    Value value{.type = {DType::kF32, shape}};
    value.name = name;
    graph().values.push_back(std::move(value));
    state.value = static_cast<ValueId>(graph().values.size() - 1);
    graph().states.push_back(std::move(state));
  }

  // A state, of which the ranks have parts of `pieces` equal pieces, or of chunks where that is 0.
  // It is cut along other axes as the parameter is.
  void keep(const std::string& name, const State& parameter, const TensorType& type,
            const Layout& layout, std::int64_t pieces) {
    Value value{.type = type, .layout = layout, .name = name};
    State state{.role = State::Role::kOptimizer, .decay = false, .cuts = parameter.cuts};
    if (pieces > 0) {
      for (Cut& cut : state.cuts) ++cut.split.dim;
    }
    if (data_.ranks > 1) {
      const std::int64_t stored = layout.stored_elements(type.shape);
      const std::int64_t piece = pieces > 0 ? stored / pieces : kCodecChunk;
      const std::int64_t each = ((stored + piece - 1) / piece + data_.ranks - 1) / data_.ranks;
      state.flat = FlatCut{.axis = data_.name,
                           .type = type,
                           .layout = layout,
                           .ranks = data_.ranks,
                           .index = data_.index,
                           .part = each * piece};
      value.type.shape = {state.flat->part};
      value.layout = Layout();
    }
    graph().values.push_back(std::move(value));
    state.value = static_cast<ValueId>(graph().values.size() - 1);
    graph().states.push_back(std::move(state));
  }

  const Graph& source_;
  const Plan& plan_;
  AxisPlace data_;
  Rewriter rewriter_;
};

}  // namespace

Graph compress_sums(const Graph& graph, const Plan& plan, int rank) {
  if (plan.codecs.empty()) return graph;
  return Compressor(graph, plan, rank).run();
}

bool is_kept_by_encoders(std::string_view state) { return state.starts_with(kResidual); }

bool is_kept_factor(std::string_view state) {
  return is_kept_by_encoders(state) && state.ends_with(kFactor);
}

}  // namespace concord::parallel
