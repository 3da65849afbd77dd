#include "concord/passes/recompute.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "concord/graph/op.h"
#include "concord/ops/step.h"
#include "concord/passes/dead_code.h"
#include "concord/passes/memory_plan.h"
#include "concord/passes/rewrite.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

std::size_t index(ValueId id) { return static_cast<std::size_t>(id); }

std::size_t bytes_of(const Graph& graph, ValueId id) {
  return stored_bytes(graph.type(id), graph.value(id).layout);
}

// By value: the value in whose memory it lies. A reshape only views its input.
std::vector<ValueId> storages(const Graph& graph) {
  std::vector<ValueId> storage(graph.values.size());
  std::iota(storage.begin(), storage.end(), ValueId{0});
  for (const Node& node : graph.nodes) {
    if (node.op == "reshape") storage[index(node.outputs[0])] = storage[index(node.inputs[0])];
  }
  return storage;
}

// Whether a storage needs memory only from where it is made to where it is read last: what a
// microbatch computes, but for outputs of the graph, what is summed over leaves, and totals, for
// which ranks meet: once each, and in the same order in programs of any number of samples.
std::vector<bool> passing_values(const Graph& graph, const std::vector<ValueId>& storage) {
  const std::vector<Phase> phase = phases(graph);
  std::vector<bool> passing(graph.values.size(), false);
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    if (phase[n] != Phase::kMicrobatch) continue;
    for (const ValueId id : graph.nodes[n].outputs) passing[index(id)] = storage[index(id)] == id;
  }
  const auto stays = [&](ValueId id) { passing[index(storage[index(id)])] = false; };
  for (const Output& output : graph.outputs) stays(output.value);
  for (const Node& node : graph.nodes) {
    if (node.op == "leaf_sum") stays(node.inputs[0]);
    if (node.op == ops::kLeafTotal) stays(node.outputs[0]);
  }
  return passing;
}

// The memory that the passing values of a graph take.
std::size_t planned_bytes(const Graph& graph) {
  const std::vector<ValueId> storage = storages(graph);
  const std::vector<bool> passing = passing_values(graph, storage);
  std::vector<std::size_t> life_of(graph.values.size());
  std::vector<Lifetime> lives;
  for (std::size_t n = 0; n < graph.nodes.size(); ++n) {
    const auto time = static_cast<int>(n);
    for (const ValueId id : graph.nodes[n].inputs) {
      const std::size_t read = index(storage[index(id)]);
      if (passing[read]) lives[life_of[read]].last = time;
    }
    for (const ValueId id : graph.nodes[n].outputs) {
      if (!passing[index(id)]) continue;
      life_of[index(id)] = lives.size();
      lives.push_back({bytes_of(graph, id), time, time});
    }
  }
  return plan_memory(lives).bytes;
}

// One past the last node of the forward pass. Only single numbers lead from there to an output.
NodeId end_of_forward(const Graph& graph) {
  const std::vector<Phase> phase = phases(graph);
  std::vector<bool> used(graph.values.size(), false);
  for (const Output& output : graph.outputs) used[index(output.value)] = true;
  auto end = static_cast<NodeId>(graph.nodes.size());
  for (NodeId n = end; n-- > 0;) {
    const Node& node = graph.node(n);
    if (std::ranges::none_of(node.outputs, [&](ValueId id) { return used[index(id)]; })) continue;
    if (phase[static_cast<std::size_t>(n)] == Phase::kMicrobatch) end = n;
    for (const ValueId id : node.inputs) {
      if (graph.type(id).shape.elements() == 1) used[index(id)] = true;
    }
  }
  return end;
}

// Copies a graph. Nodes behind the forward pass read copies of what is not kept, each made before
// the first of them that reads it. `kept`: by storage.
class BackwardCopies {
 public:
  BackwardCopies(const Graph& graph, NodeId end_of_forward, const std::vector<ValueId>& storage,
                 const std::vector<bool>& kept)
      : graph_(graph),
        end_of_forward_(end_of_forward),
        storage_(storage),
        kept_(kept),
        is_copied_(graph.values.size(), false),
        rewriter_(graph) {}

  Graph run() {
    for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes.size()); ++n) {
      const Node& node = graph_.node(n);
      if (n >= end_of_forward_) {
        for (const ValueId id : node.inputs) provide(id);
      }
      rewriter_.copy(node);
    }
    return remove_dead_code(rewriter_.finish());
  }

 private:
  bool is_kept(ValueId id) const { return kept_[index(storage_[index(id)])]; }

  // From now on a value that is not kept is its copy.
  void provide(ValueId id) {
    if (is_kept(id) || is_copied_[index(id)]) return;
    const Node& node = graph_.node(graph_.value(id).producer);
    for (const ValueId input : node.inputs) provide(input);
    std::vector<std::pair<ValueId, ValueId>> kept;
    for (const ValueId output : node.outputs) {
      if (is_kept(output)) kept.emplace_back(output, rewriter_[output]);
      is_copied_[index(output)] = true;
    }
    rewriter_.copy(node);
    for (const auto& [output, first] : kept) rewriter_.map(output, first);
  }

  const Graph& graph_;
  const NodeId end_of_forward_;
  const std::vector<ValueId>& storage_;
  const std::vector<bool>& kept_;
  std::vector<bool> is_copied_;  // by value
  Rewriter rewriter_;
};

// Vocabulary beside that of the header: an activation is *wanted* when the backward pass reads it;
// *time* is the place of a node in the forward pass; a boundary is the time of the node behind it.
class Recomputation {
 public:
  Recomputation(const Graph& graph, Recompute what, std::span<const ValueId> borders)
      : graph_(graph),
        what_(what),
        storage_(storages(graph)),
        end_of_forward_(end_of_forward(graph)),
        activations_(graph.values.size()) {
    find_activations();
    for (const ValueId id : borders) activation(id).is_border = true;
    measure_boundaries();
  }

  Graph run() const {
    std::vector<bool> kept(activations_.size(), true);
    std::size_t least = bytes_with(kept), last_segment = 0;
    std::vector<std::size_t> boundaries;
    constexpr double kFiner = 0.8;
    for (auto bound = static_cast<double>(again_before_.back()); bound >= 1; bound *= kFiner) {
      std::vector<std::size_t> others = cheapest_boundaries(static_cast<std::size_t>(bound));
      if (others.empty() || others == boundaries) continue;
      boundaries = std::move(others);
      std::vector<bool> by_these = kept_values(boundaries);
      const std::size_t bytes = bytes_with(by_these);
      if (bytes >= least) continue;
      least = bytes;
      kept = std::move(by_these);
      last_segment = boundaries.back();
    }
    std::vector<bool> more = kept;
    for (std::size_t v = 0; v < more.size(); ++v) {
      if (activations_[v].made >= last_segment) more[v] = true;
    }
    return with(bytes_with(more) <= least ? more : kept);
  }

 private:
  // Of a storage. Without bytes: what is there throughout.
  struct Activation {
    std::size_t bytes = 0;
    std::size_t made = 0;       // time
    std::size_t last_read = 0;  // in the forward pass; time
    bool is_wanted = false;
    bool is_cheap = false;
    bool is_border = false;
  };

  Graph with(const std::vector<bool>& kept) const {
    return BackwardCopies(graph_, end_of_forward_, storage_, kept).run();
  }
  std::size_t bytes_with(const std::vector<bool>& kept) const { return planned_bytes(with(kept)); }

  const Activation& activation(ValueId id) const {
    return activations_[index(storage_[index(id)])];
  }
  Activation& activation(ValueId id) { return activations_[index(storage_[index(id)])]; }

  void find_activations() {
    const std::vector<Phase> phase = phases(graph_);
    const std::vector<bool> passing = passing_values(graph_, storage_);
    for (NodeId n = 0; n < static_cast<NodeId>(graph_.nodes.size()); ++n) {
      if (phase[static_cast<std::size_t>(n)] != Phase::kMicrobatch) continue;
      const Node& node = graph_.node(n);
      if (n >= end_of_forward_) {
        for (const ValueId id : node.inputs) activation(id).is_wanted = true;
        continue;
      }
      for (const ValueId id : node.inputs) activation(id).last_read = forward_.size();
      for (const ValueId id : node.outputs) {
        if (!passing[index(id)]) continue;
        activation(id) = {.bytes = bytes_of(graph_, id),
                          .made = forward_.size(),
                          .last_read = forward_.size(),
                          .is_cheap = is_cheap(node)};
      }
      forward_.push_back(n);
    }
  }

  bool is_cheap(const Node& node) const {
    constexpr double kFlopsPerByte = 8;
    double bytes = 0;
    for (const ValueId id : node.outputs) bytes += static_cast<double>(graph_.type(id).bytes());
    return what_ == Recompute::kFull || cost_of(graph_, node).flops <= kFlopsPerByte * bytes;
  }

  void measure_boundaries() {
    boundary_bytes_.assign(forward_.size() + 1, 0);
    again_before_.assign(forward_.size() + 1, 0);
    for (const Activation& a : activations_) {
      if (a.bytes == 0) continue;
      for (std::size_t time = a.made + 1; time <= a.last_read; ++time) {
        boundary_bytes_[time] += a.bytes;
      }
      if (a.is_wanted && a.is_cheap) again_before_[a.made + 1] += a.bytes;
    }
    std::partial_sum(again_before_.begin(), again_before_.end(), again_before_.begin());
  }

  // The boundaries, in order, whose bytes are fewest in sum, where no segment computes more than
  // `bound` bytes again unless it is a single node.
  std::vector<std::size_t> cheapest_boundaries(std::size_t bound) const {
    const std::size_t end = forward_.size();
    std::vector<std::size_t> bytes(end + 1, 0);   // of the best boundaries up to and with this one
    std::vector<std::size_t> before(end + 1, 0);  // the boundary before this one
    for (std::size_t time = 1; time <= end; ++time) {
      before[time] = time - 1;
      for (std::size_t first = time - 1; first-- > 0;) {
        if (again_before_[time] - again_before_[first] > bound) break;
        if (bytes[first] <= bytes[before[time]]) before[time] = first;
      }
      bytes[time] = bytes[before[time]] + boundary_bytes_[time];
    }
    std::vector<std::size_t> boundaries;
    for (std::size_t time = before[end]; time > 0; time = before[time]) boundaries.push_back(time);
    std::ranges::reverse(boundaries);
    return boundaries;
  }

  // By storage: whether it is not computed again.
  std::vector<bool> kept_values(std::span<const std::size_t> boundaries) const {
    std::vector<bool> kept;
    for (const Activation& a : activations_) {
      const auto behind = std::ranges::upper_bound(boundaries, a.made);
      const bool is_in_boundary = behind != boundaries.end() && *behind <= a.last_read;
      kept.push_back(a.bytes == 0 || a.is_border || is_in_boundary || (a.is_wanted && !a.is_cheap));
    }
    if (what_ == Recompute::kFull) return kept;
    for (const NodeId n : forward_) {
      for (const ValueId id : graph_.node(n).outputs) {
        if (activation(id).is_wanted && !kept[index(storage_[index(id)])]) keep_sources(id, kept);
      }
    }
    return kept;
  }

  // Keeps the dear values from which a cheap one is computed, or the value itself where that takes
  // no more memory.
  void keep_sources(ValueId id, std::vector<bool>& kept) const {
    std::vector<ValueId> cheap = {storage_[index(id)]}, sources;
    std::set<ValueId> found;
    std::size_t bytes = 0;
    for (std::size_t next = 0; next < cheap.size(); ++next) {
      for (const ValueId input : graph_.node(graph_.value(cheap[next]).producer).inputs) {
        const ValueId value = storage_[index(input)];
        if (kept[index(value)] || !found.insert(value).second) continue;
        (activation(value).is_cheap ? cheap : sources).push_back(value);
        if (!activation(value).is_cheap) bytes += activation(value).bytes;
      }
    }
    if (bytes >= activation(id).bytes) sources = {storage_[index(id)]};
    for (const ValueId source : sources) kept[index(source)] = true;
  }

  const Graph& graph_;
  const Recompute what_;
  const std::vector<ValueId> storage_;
  const NodeId end_of_forward_;
  std::vector<NodeId> forward_;              // by time
  std::vector<Activation> activations_;      // by storage
  std::vector<std::size_t> boundary_bytes_;  // by time: of the boundary
  std::vector<std::size_t> again_before_;    // by time: bytes that could be computed again
};

}  // namespace

Graph recompute_activations(const Graph& graph, Recompute what, std::span<const ValueId> borders) {
  return what == Recompute::kNone ? graph : Recomputation(graph, what, borders).run();
}

}  // namespace concord
