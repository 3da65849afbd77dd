#include "concord/passes/layout_choice.h"

#include <algorithm>
#include <utility>

#include "concord/base/error.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

using PartyId = std::size_t;

// Whoever reads and makes values: a node; a state, which reads what it becomes (or, if it stays,
// itself) and makes its value, both in one layout; an output of the graph, which reads.
struct Party {
  std::vector<ValueId> values;  // its operands: what it reads, then what it makes
  std::vector<Layout> layouts;  // by operand
  std::size_t inputs = 0;       // operands read
  bool is_fixed = false;        // takes no other layouts
};

struct Operand {
  PartyId party = 0;
  std::size_t operand = 0;
};

// Other layouts for some operands of a party.
struct Move {
  PartyId party = 0;
  std::vector<std::pair<std::size_t, Layout>> changes;
};

template <typename T>
std::vector<T> joined(std::vector<T> first, const std::vector<T>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

class LayoutSearch {
 public:
  LayoutSearch(const Graph& graph, const LayoutOracle& oracle, const LayoutOptions& options)
      : graph_(graph),
        oracle_(oracle),
        readers_(graph.values.size()),
        makers_(graph.values.size()),
        runs_(graph.values.size(), 1),
        costs_(graph.values.size()) {
    count_runs(options.microbatches);
    walk(options);
    asked_.resize(parties_.size());
    for (std::size_t v = 0; v < costs_.size(); ++v) update_cost(static_cast<ValueId>(v));
  }

  LayoutChoice run() {
    for (bool cheaper = true; cheaper;) cheaper = improve();
    LayoutChoice choice{.nodes = {}, .values = {}, .reordered_bytes = total_};
    for (std::size_t v = 0; v < graph_.values.size(); ++v) {
      choice.values.push_back(made(static_cast<ValueId>(v)));
    }
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      const std::vector<Layout>& layouts = parties_[n].layouts;
      const auto outputs = layouts.begin() + static_cast<std::ptrdiff_t>(parties_[n].inputs);
      choice.nodes.push_back({{layouts.begin(), outputs}, {outputs, layouts.end()}});
    }
    return choice;
  }

 private:
  static constexpr std::size_t kMany = 16;

  static std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

  // How often what depends on a value runs in a step.
  void count_runs(std::int64_t microbatches) {
    const auto runs = static_cast<std::size_t>(microbatches);
    for (const Input& input : graph_.inputs) {
      if (input.kind == Input::Kind::kBatch) runs_[index(input.value)] = runs;
    }
    const std::vector<Phase> phase = phases(graph_);
    for (std::size_t n = 0; n < graph_.nodes.size(); ++n) {
      if (phase[n] != Phase::kMicrobatch) continue;
      for (const ValueId output : graph_.nodes[n].outputs) runs_[index(output)] = runs;
    }
  }

  // The first choice: each node is offered what its inputs have. Nodes become the first parties.
  void walk(const LayoutOptions& options) {
    std::vector<std::optional<Layout>> made(graph_.values.size(), Layout());
    for (const State& state : graph_.states) {
      const auto pin = options.states.find(graph_.value(state.value).name);
      made[index(state.value)] =
          pin == options.states.end() ? std::nullopt : std::optional(pin->second);
    }
    std::size_t sums = 0;
    for (const Node& node : graph_.nodes) {
      std::vector<std::optional<Layout>> offer;
      for (const ValueId input : node.inputs) offer.push_back(made[index(input)]);
      const bool is_indifferent = node.op == "cast" && !offer[0];
      const bool is_pinned_sum = node.op == "leaf_sum" && options.leaf_sums;
      if (is_pinned_sum) {
        CONCORD_CHECK(sums < options.leaf_sums->size());
        offer[0] = (*options.leaf_sums)[sums++];
      }
      add({joined(node.inputs, node.outputs), ask(node, offer), node.inputs.size(), is_pinned_sum});
      const Party& party = parties_.back();
      for (std::size_t i = 0; i < party.values.size(); ++i) {
        std::optional<Layout>& layout = made[index(party.values[i])];
        if (i >= party.inputs || (!layout && !is_indifferent)) layout = party.layouts[i];
      }
    }
    for (PartyId id = 0; id < graph_.nodes.size(); ++id) {
      const Node& node = graph_.nodes[id];
      if (node.op != "cast") continue;
      const std::optional<Layout> offer = made[index(node.inputs[0])].value_or(Layout());
      parties_[id].layouts = ask(node, {&offer, 1});
    }
    for (const State& state : graph_.states) {
      const Layout layout = made[index(state.value)].value_or(Layout());
      add({{state.next == kNoValue ? state.value : state.next, state.value},
           {layout, layout},
           1,
           options.states.contains(graph_.value(state.value).name)});
    }
    for (const Output& output : graph_.outputs) add({{output.value}, {Layout()}, 1, true});
  }

  void add(Party party) {
    const PartyId id = parties_.size();
    for (std::size_t i = 0; i < party.values.size(); ++i) {
      if (i < party.inputs) {
        readers_[index(party.values[i])].push_back({id, i});
      } else {
        makers_[index(party.values[i])] = {id, i};
      }
    }
    parties_.push_back(std::move(party));
  }

  std::vector<Layout> ask(const Node& node, std::span<const std::optional<Layout>> offer) const {
    if (node.op == "leaf_sum") return std::vector<Layout>(2, offer[0].value_or(Layout()));
    const NodeLayouts answer = oracle_(graph_, node, offer);
    CONCORD_CHECK(
        answer.inputs.size() == node.inputs.size() && answer.outputs.size() == node.outputs.size(),
        "layouts of {}", node.op);
    return joined(answer.inputs, answer.outputs);
  }

  // What a party that is not fixed says to an offer; nodes with few inputs are asked once.
  std::vector<Layout> answer(PartyId id, const std::vector<Layout>& offer) {
    if (id >= graph_.nodes.size()) return std::vector<Layout>(2, offer[0]);  // a state
    for (const auto& [asked, said] : asked_[id]) {
      if (asked == offer) return said;
    }
    const std::vector<std::optional<Layout>> inputs(offer.begin(), offer.end());
    std::vector<Layout> said = ask(graph_.nodes[id], inputs);
    if (offer.size() <= kMany) asked_[id].emplace_back(offer, said);
    return said;
  }

  const Layout& layout(const Operand& o) const { return parties_[o.party].layouts[o.operand]; }
  const Shape& shape(ValueId value) const { return graph_.type(value).shape; }

  // The layout in which a value is made; a graph's inputs are row-major.
  const Layout& made(ValueId value) const {
    static const Layout row_major;
    const std::optional<Operand>& maker = makers_[index(value)];
    return maker ? layout(*maker) : row_major;
  }

  // The layouts in which a value is made and wanted, each once; first that in which it is made.
  std::vector<const Layout*> layouts_of(ValueId value) const {
    std::vector<const Layout*> result = {&made(value)};
    for (const Operand& reader : readers_[index(value)]) {
      const auto is_wanted = [&](const Layout* other) { return *other == layout(reader); };
      if (std::ranges::none_of(result, is_wanted)) result.push_back(&layout(reader));
    }
    return result;
  }

  // The cost of a value: bytes that its reorders read and write in a step.
  void update_cost(ValueId value) {
    const std::vector<const Layout*> layouts = layouts_of(value);
    const TensorType& type = graph_.type(value);
    std::size_t bytes = 0;
    for (std::size_t i = 1; i < layouts.size(); ++i) {
      bytes += stored_bytes(type, *layouts[0]) + stored_bytes(type, *layouts[i]);
    }
    bytes *= runs_[index(value)];
    total_ += bytes - std::exchange(costs_[index(value)], bytes);
  }

  // Makes a move; `move` then holds what takes it back.
  void make(Move& move) {
    Party& party = parties_[move.party];
    for (auto& [operand, layout] : move.changes) std::swap(party.layouts[operand], layout);
    for (const auto& [operand, layout] : move.changes) update_cost(party.values[operand]);
  }

  // The bytes that are reordered in all once a move is made.
  std::size_t total_after(Move& move) {
    make(move);
    const std::size_t total = total_;
    make(move);
    return total;
  }

  // The moves that give an operand another layout: its party is offered that layout for it alone,
  // and for all inputs that are laid out alike; but not in an update, which has many inputs and
  // lays out every parameter by itself.
  std::vector<Move> moves(const Operand& o, const Layout& wanted) {
    const Party& party = parties_[o.party];
    std::vector<Move> result;
    if (party.is_fixed || party.layouts[o.operand] == wanted) return result;
    const Shape& own = shape(party.values[o.operand]);
    std::vector<Layout> alone(party.layouts.begin(),
                              party.layouts.begin() + static_cast<std::ptrdiff_t>(party.inputs));
    std::vector<Layout> alike = alone;
    for (std::size_t i = 0; i < party.inputs; ++i) {
      const Shape& other = shape(party.values[i]);
      if (i == o.operand) alone[i] = wanted;
      if (other.rank() == own.rank() && alike[i] == resized(layout(o), own, other)) {
        alike[i] = resized(wanted, own, other);
      }
    }
    const auto offer = [&](const std::vector<Layout>& inputs) {
      const std::vector<Layout> said = answer(o.party, inputs);
      if (said[o.operand] == wanted) result.push_back(move_to(o.party, said));
    };
    offer(alone);
    if (party.inputs <= kMany && alike != alone) offer(alike);
    return result;
  }

  Move move_to(PartyId id, const std::vector<Layout>& layouts) const {
    Move move{id, {}};
    for (std::size_t i = 0; i < layouts.size(); ++i) {
      if (layouts[i] != parties_[id].layouts[i]) move.changes.emplace_back(i, layouts[i]);
    }
    return move;
  }

  // One look at everybody. Whether some were given other layouts, and bytes were saved.
  bool improve() {
    const std::size_t before = total_;
    for (PartyId id = 0; id < parties_.size(); ++id) {
      for (std::size_t i = 0; i < parties_[id].values.size(); ++i) {
        while (improve_at({id, i})) {
        }
      }
    }
    return total_ < before;
  }

  // A move that is taken back leaves every layout where it lay.
  bool improve_at(const Operand& o) {
    const ValueId value = parties_[o.party].values[o.operand];
    if (costs_[index(value)] == 0) return false;
    for (const Layout* wanted : layouts_of(value)) {
      for (Move& move : moves(o, Layout(*wanted))) {
        if (improve_from(std::move(move))) return true;
      }
    }
    return false;
  }

  // Moves a party and then, one by one, the neighbours that can follow, each time the cheapest.
  // What was moved beyond the cheapest choice on the way is put back.
  bool improve_from(Move first) {
    constexpr std::size_t kMoves = 16;
    std::vector<Move> next = {std::move(first)}, done;
    std::size_t least = total_, kept = 0;
    while (!next.empty() && done.size() < kMoves) {
      const auto cheapest =
          std::ranges::min_element(next, {}, [&](Move& move) { return total_after(move); });
      done.push_back(std::move(*cheapest));
      const PartyId moved = done.back().party;
      std::erase_if(next, [&](const Move& move) { return move.party == moved; });
      make(done.back());
      if (total_ < least) {
        least = total_;
        kept = done.size();
      }
      for (Move& move : moves_beside(moved)) {
        if (std::ranges::count(done, move.party, &Move::party) == 0)
          next.push_back(std::move(move));
      }
    }
    for (; done.size() > kept; done.pop_back()) make(done.back());
    return kept > 0;
  }

  // What the neighbours of a party could do so that its values need no reorders.
  std::vector<Move> moves_beside(PartyId id) {
    const Party& party = parties_[id];
    std::vector<Move> result;
    for (std::size_t i = 0; i < party.values.size(); ++i) {
      if (costs_[index(party.values[i])] == 0) continue;
      std::vector<Operand> neighbours = readers_[index(party.values[i])];
      if (const auto& maker = makers_[index(party.values[i])]) neighbours.push_back(*maker);
      for (const Operand& neighbour : neighbours) {
        for (Move& move : moves(neighbour, party.layouts[i])) result.push_back(std::move(move));
      }
    }
    return result;
  }

  const Graph& graph_;
  const LayoutOracle& oracle_;
  std::vector<Party> parties_;                  // nodes, states, outputs
  std::vector<std::vector<Operand>> readers_;   // by value
  std::vector<std::optional<Operand>> makers_;  // by value
  std::vector<std::size_t> runs_;               // by value: of its reorders, in a step
  std::vector<std::size_t> costs_;              // by value
  std::size_t total_ = 0;                       // of costs_
  std::vector<std::vector<std::pair<std::vector<Layout>, std::vector<Layout>>>> asked_;
};

}  // namespace

LayoutChoice choose_layouts(const Graph& graph, const LayoutOracle& oracle,
                            const LayoutOptions& options) {
  return LayoutSearch(graph, oracle, options).run();
}

}  // namespace concord
