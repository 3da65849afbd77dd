#include <optional>

#include "concord/base/error.h"
#include "concord/kernels/cpu/instruction_set.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/ops/collective.h"
#include "concord/parallel/compress.h"
#include "concord/parallel/partition.h"
#include "concord/parallel/stages.h"
#include "concord/passes/dead_code.h"
#include "concord/passes/fuse_batch_norm_relu.h"
#include "concord/passes/keep_old_states.h"
#include "concord/passes/merge_linear_cross_entropy.h"
#include "concord/passes/mixed_precision.h"
#include "concord/runtime/node_times.h"
#include "concord/runtime/program.h"

namespace concord {
namespace {

// An all_reduce takes any layout; what moves parts of a tensor wants it row-major.
NodeLayouts layouts_of_collective(const Node& node, const std::optional<Layout>& input) {
  const Layout layout = node.op == ops::kAllReduce ? input.value_or(Layout()) : Layout();
  return {{layout}, {layout}};
}

std::vector<Layout> layouts_of_sums(const Graph& graph) {
  std::vector<Layout> layouts;
  for (const Node& node : graph.nodes) {
    if (node.op == "leaf_sum") layouts.push_back(graph.value(node.inputs[0]).layout);
  }
  return layouts;
}

parallel::StageTimer stage_timer(KernelPolicy& policy) {
  if (!policy.measure) return {};
  return {.measure =
              [&policy](const Graph& graph, std::span<const std::size_t> nodes) {
                return time_nodes(graph, nodes, policy);
              },
          .machine = cpu::machine_key(policy.threads),
          .decisions = &policy.choices};
}

}  // namespace

Graph lower(const Graph& graph, KernelPolicy& policy, const LowerOptions& options,
            std::vector<PassRecord>* records) {
  const LayoutOracle oracle = [&](const Graph& g, const Node& node,
                                  std::span<const std::optional<Layout>> inputs) -> NodeLayouts {
    if (ops::is_collective(node.op)) return layouts_of_collective(node, inputs[0]);
    const KernelRule& rule = cpu::find_kernel_rule(node.op);
    if (rule.layouts == nullptr) {
      return {std::vector<Layout>(node.inputs.size()), std::vector<Layout>(node.outputs.size())};
    }
    LayoutWish wish = rule.layouts(signature_of(g, node), inputs, policy);
    return {std::move(wish.inputs), std::move(wish.outputs)};
  };
  std::vector<Pass> passes = {{"dead code", remove_dead_code}};
  if (options.plan != nullptr) {
    passes.push_back({"divide over tensor", [&](const Graph& g) {
                        return parallel::divide(g, *options.plan, options.rank);
                      }});
  }
  if (options.precision == DType::kBF16) passes.push_back({"mixed precision", mixed_precision});
  passes.push_back({"fuse batch norm and relu", fuse_batch_norm_relu});
  passes.push_back({"merge linear cross-entropy", merge_linear_cross_entropy});
  passes.push_back({"keep old states", keep_old_states});
  passes.push_back({"layout", [&](const Graph& g) {
                      Graph laid_out = assign_layouts(g, oracle, options.layouts);
                      if (options.sums_layouts != nullptr) {
                        *options.sums_layouts = layouts_of_sums(laid_out);
                      }
                      return laid_out;
                    }});
  passes.push_back({"recompute", [&](const Graph& g) {
                      if (options.recompute == Recompute::kNone || options.plan == nullptr) {
                        return recompute_activations(g, options.recompute);
                      }
                      const std::vector<ValueId> borders =
                          parallel::decide_cuts(g, *options.plan, stage_timer(policy));
                      return recompute_activations(g, options.recompute, borders);
                    }});
  if (options.plan != nullptr) {
    passes.push_back({"divide over data", [&](const Graph& g) {
                        return parallel::partition(g, *options.plan, options.rank);
                      }});
    passes.push_back({"compress sums", [&](const Graph& g) {
                        return parallel::compress_sums(g, *options.plan, options.rank);
                      }});
    passes.push_back({"cut into stages", [&](const Graph& g) {
                        return parallel::cut_into_stages(g, *options.plan, options.rank,
                                                         stage_timer(policy));
                      }});
  }
  return run_passes(graph, passes, records);
}

}  // namespace concord
