#include "concord/passes/layout_choice.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <set>

#include "concord/base/philox.h"
#include "concord/passes/layout.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

// Three kinds of layout for matrices: row-major, column-major, and tiles of four columns.
constexpr std::size_t kKinds = 3;

Layout layout_of(std::size_t kind, const Shape& shape) {
  if (kind == 0) return {};
  if (kind == 1) return Layout(shape, {1, shape[0]}, shape.dims(), {});
  return Layout(shape, {4, 4 * shape[0]}, shape.dims(), {{1, 4}});
}

std::size_t kind_of(const Layout& layout) {
  if (layout.is_row_major()) return 0;
  return layout.blocks().empty() ? 1 : 2;
}

// A graph whose nodes named "fixed" read and make what `kinds` says, while the others have all
// their values in the layout of the first that they are offered.
struct Puzzle {
  Graph graph;
  std::vector<std::array<std::size_t, 2>> kinds;  // by node: read, made

  ValueId value(std::int64_t columns) {
    graph.values.push_back({.type = {DType::kF32, {8, columns}}});
    return static_cast<ValueId>(graph.values.size() - 1);
  }
  ValueId node(const std::string& name, std::vector<ValueId> inputs, std::int64_t columns,
               std::array<std::size_t, 2> kind = {}) {
    const ValueId output = value(columns);
    graph.value(output).producer = static_cast<NodeId>(graph.nodes.size());
    graph.nodes.push_back({.op = "some", .inputs = std::move(inputs), .outputs = {output}});
    graph.nodes.back().name = name;
    kinds.push_back(kind);
    return output;
  }
  ValueId fixed(ValueId input, std::int64_t columns, std::size_t reads, std::size_t makes) {
    return node("fixed", {input}, columns, {reads, makes});
  }
  ValueId input(std::int64_t columns) {
    graph.inputs.push_back({value(columns)});
    return graph.inputs.back().value;
  }

  NodeLayouts layouts(std::size_t n, std::size_t reads, std::size_t makes) const {
    NodeLayouts result;
    for (const ValueId id : graph.nodes[n].inputs) {
      result.inputs.push_back(layout_of(reads, graph.type(id).shape));
    }
    result.outputs = {layout_of(makes, graph.type(graph.nodes[n].outputs[0]).shape)};
    return result;
  }

  LayoutOracle oracle() const {
    return [this](const Graph& g, const Node& node, std::span<const std::optional<Layout>> offer) {
      const auto n = static_cast<std::size_t>(&node - g.nodes.data());
      if (node.name == "fixed") return layouts(n, kinds[n][0], kinds[n][1]);
      const std::size_t kind = kind_of(offer[0].value_or(Layout()));
      return layouts(n, kind, kind);
    };
  }

  // Bytes read and written by reorders when node n reads and makes `choice[n]`, and state s is kept
  // in the kind that follows those of the nodes.
  std::size_t cost(const std::vector<std::array<std::size_t, 2>>& choice) const {
    std::vector<std::size_t> made(graph.values.size());
    std::vector<std::set<std::size_t>> wanted(graph.values.size());
    for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
      for (const ValueId id : graph.nodes[n].inputs) {
        wanted[static_cast<std::size_t>(id)].insert(choice[n][0]);
      }
      made[static_cast<std::size_t>(graph.nodes[n].outputs[0])] = choice[n][1];
    }
    for (std::size_t s = 0; s < graph.states.size(); ++s) {
      const std::size_t kind = choice[graph.nodes.size() + s][0];
      made[static_cast<std::size_t>(graph.states[s].value)] = kind;
      if (graph.states[s].next != kNoValue) {
        wanted[static_cast<std::size_t>(graph.states[s].next)].insert(kind);
      }
    }
    for (const Output& output : graph.outputs) {
      wanted[static_cast<std::size_t>(output.value)].insert(0);
    }
    std::size_t bytes = 0;
    for (std::size_t v = 0; v < graph.values.size(); ++v) {
      wanted[v].erase(made[v]);
      bytes += 2 * wanted[v].size() * graph.values[v].type.bytes();
    }
    return bytes;
  }

  // The least over every choice of the nodes that are free and of the states.
  std::size_t least_cost() const {
    std::vector<std::array<std::size_t, 2>> choice = kinds;
    choice.resize(graph.nodes.size() + graph.states.size());
    return least_cost(choice, 0);
  }
  std::size_t least_cost(std::vector<std::array<std::size_t, 2>>& choice, std::size_t i) const {
    if (i == choice.size()) return cost(choice);
    if (i < graph.nodes.size() && graph.nodes[i].name == "fixed") return least_cost(choice, i + 1);
    std::size_t least = std::numeric_limits<std::size_t>::max();
    for (std::size_t kind = 0; kind < kKinds; ++kind) {
      choice[i] = {kind, kind};
      least = std::min(least, least_cost(choice, i + 1));
    }
    return least;
  }
};

std::size_t reordered_bytes(const Graph& graph) {
  std::size_t bytes = 0;
  for (const Node& node : graph.nodes) {
    if (node.op != "reorder") continue;
    for (const ValueId id : {node.inputs[0], node.outputs[0]}) {
      bytes += stored_bytes(graph.type(id), graph.value(id).layout);
    }
  }
  return bytes;
}

void expect_least_cost(const Puzzle& puzzle) {
  const LayoutChoice choice = choose_layouts(puzzle.graph, puzzle.oracle(), {});
  EXPECT_EQ(choice.reordered_bytes, puzzle.least_cost());
  EXPECT_EQ(reordered_bytes(assign_layouts(puzzle.graph, puzzle.oracle())), choice.reordered_bytes);
}

TEST(LayoutChoice, ReordersASmallValueBeforeItGrows) {
  Puzzle puzzle;
  const ValueId small = puzzle.fixed(puzzle.input(4), 4, 0, 1);
  const ValueId grown = puzzle.node("free", {puzzle.node("free", {small}, 16)}, 64);
  puzzle.fixed(grown, 4, 2, 0);
  expect_least_cost(puzzle);
  EXPECT_EQ(choose_layouts(puzzle.graph, puzzle.oracle(), {}).reordered_bytes,
            2 * puzzle.graph.type(small).bytes());
}

TEST(LayoutChoice, CrossesALargeValueToReorderASmallOne) {
  Puzzle puzzle;
  const ValueId small = puzzle.fixed(puzzle.input(4), 4, 0, 1);
  const ValueId large = puzzle.node("free", {small}, 64);
  puzzle.fixed(puzzle.node("free", {large}, 8), 4, 2, 0);
  expect_least_cost(puzzle);
}

TEST(LayoutChoice, ReordersOnceAStepRatherThanInEachMicrobatch) {
  Puzzle puzzle;
  const ValueId gradient = puzzle.fixed(puzzle.input(4), 16, 0, 1);
  const ValueId sum = puzzle.node("free", {gradient}, 16);
  puzzle.graph.nodes.back().op = "leaf_sum";
  puzzle.fixed(puzzle.node("free", {sum}, 32), 4, 2, 0);
  const LayoutChoice one = choose_layouts(puzzle.graph, puzzle.oracle(), {.microbatches = 8});
  EXPECT_EQ(one.reordered_bytes, 2 * puzzle.graph.type(sum).bytes());
  EXPECT_EQ(one.nodes[1].inputs, one.nodes[0].outputs);
}

TEST(LayoutChoice, KeepsAStateAsMostOfItsReadersWantIt) {
  Puzzle puzzle;
  const ValueId state = puzzle.value(8);
  puzzle.graph.states.push_back({.value = state});
  puzzle.fixed(state, 4, 1, 0);
  const ValueId second = puzzle.fixed(state, 4, 2, 0);
  const ValueId next = puzzle.fixed(puzzle.node("free", {second}, 8), 8, 0, 2);
  puzzle.graph.states[0].next = next;
  expect_least_cost(puzzle);
}

// As weights of a step in bf16: the kernel that reads them wants another layout than their gradient
// comes in, and the cast ones are smaller.
TEST(LayoutChoice, KeepsAStateThatIsCastAsItsGradientComes) {
  Puzzle puzzle;
  const ValueId state = puzzle.value(8);
  puzzle.graph.states.push_back({.value = state});
  const ValueId cast = puzzle.node("free", {state}, 8);
  puzzle.graph.nodes.back().op = "cast";
  puzzle.graph.value(cast).type.dtype = DType::kBF16;
  puzzle.fixed(cast, 4, 1, 0);
  const ValueId gradient = puzzle.fixed(puzzle.input(4), 8, 0, 2);
  puzzle.graph.states[0].next = puzzle.node("free", {state, gradient}, 8);
  expect_least_cost(puzzle);
  EXPECT_EQ(choose_layouts(puzzle.graph, puzzle.oracle(), {}).reordered_bytes,
            2 * puzzle.graph.type(cast).bytes());
}

TEST(LayoutChoice, FindsWhatExhaustiveSearchFinds) {
  const RandomStream random{.seed = 5};
  int reorders = 0;
  for (std::uint32_t round = 0; round < 100; ++round) {
    std::uint32_t draws = 0;
    const auto draw = [&](std::size_t below) {
      return uniform_below(random.block(round * 1000 + draws++)[0],
                           static_cast<std::uint32_t>(below));
    };
    const auto columns = [&] { return std::int64_t{4} << (2 * draw(3)); };
    Puzzle puzzle;
    const std::int64_t width = columns();
    const ValueId state = puzzle.value(width);
    puzzle.graph.states.push_back({.value = state});
    std::vector<ValueId> values = {puzzle.input(columns()), state};
    for (std::size_t n = 0; n < 10; ++n) {
      const ValueId x = values[values.size() - 1 - draw(std::min<std::size_t>(3, values.size()))];
      if (draw(3) == 0) {
        values.push_back(puzzle.fixed(x, columns(), draw(kKinds), draw(kKinds)));
      } else if (draw(2) == 0) {
        values.push_back(puzzle.node("free", {x}, columns()));
      } else {
        values.push_back(puzzle.node("free", {x, values[draw(values.size())]}, columns()));
      }
    }
    if (draw(2) == 0) puzzle.graph.states[0].next = puzzle.fixed(values.back(), width, 0, draw(3));
    if (draw(2) == 0) puzzle.graph.outputs.push_back({"y", values.back()});
    SCOPED_TRACE(round);
    expect_least_cost(puzzle);
    reorders += puzzle.least_cost() > 0;
  }
  EXPECT_GT(reorders, 60);
}

}  // namespace
}  // namespace concord
