#include "concord/runtime/node_times.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <memory>

#include "concord/base/clock.h"
#include "concord/kernels/cpu/registry.h"
#include "concord/runtime/step_kinds.h"
#include "concord/tensor/buffer.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

constexpr int kFewestRounds = 3, kMostRounds = 20;
constexpr double kSeconds = 0.3;  // after which no further round begins

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Nodes that take equally long.
class Kind {
 public:
  Kind(const Signature& signature, KernelPolicy& policy)
      : kernel_(cpu::find_kernel_rule(signature.node.op).make(signature, policy)) {
    for (const Operand& operand : signature.inputs) add(stored_bytes(operand.type, operand.layout));
    input_bytes_ = bytes_;
    for (const Operand& operand : signature.outputs) {
      add(stored_bytes(operand.type, operand.layout));
    }
    add(kernel_->scratchpad_bytes());
  }

  std::size_t bytes() const { return bytes_; }
  double seconds() const { return seconds_; }

  void run(std::byte* memory) {
    std::memset(memory, 0, input_bytes_);
    operands_.clear();
    for (const std::size_t offset : offsets_) operands_.push_back(memory + offset);
    const double before = now_seconds();
    kernel_->run(operands_);
    seconds_ = std::min(seconds_, now_seconds() - before);
  }

 private:
  void add(std::size_t bytes) {
    offsets_.push_back(bytes_);
    bytes_ += aligned(bytes);
  }

  std::unique_ptr<Kernel> kernel_;
  std::vector<std::size_t> offsets_;
  std::vector<std::byte*> operands_;
  std::size_t bytes_ = 0, input_bytes_ = 0;
  double seconds_ = std::numeric_limits<double>::infinity();
};

}  // namespace

std::vector<std::optional<double>> time_nodes(const Graph& graph,
                                              std::span<const std::size_t> nodes,
                                              KernelPolicy& policy) {
  std::map<std::string, Kind> kinds;
  std::vector<const Kind*> timed;  // by place in `nodes`
  for (const std::size_t n : nodes) {
    const Node& node = graph.nodes[n];
    const bool is_timed = has_kernel(node) && !cpu::find_kernel_rule(node.op).view;
    if (!is_timed) {
      timed.push_back(nullptr);
      continue;
    }
    timed.push_back(
        &kinds.try_emplace(kind_of(graph, node), signature_of(graph, node), policy).first->second);
  }
  std::size_t bytes = 0;
  for (const auto& [name, kind] : kinds) bytes = std::max(bytes, kind.bytes());
  Buffer memory(bytes);
  const double start = now_seconds();
  for (int round = 0;
       round < kFewestRounds || (round < kMostRounds && now_seconds() - start < kSeconds);
       ++round) {
    for (auto& [name, kind] : kinds) kind.run(memory.data());
  }
  std::vector<std::optional<double>> seconds;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    const Node& node = graph.nodes[nodes[i]];
    if (timed[i] != nullptr) {
      seconds.emplace_back(timed[i]->seconds());
    } else if (has_kernel(node)) {
      seconds.emplace_back(0);  // a view
    } else {
      seconds.emplace_back(std::nullopt);
    }
  }
  return seconds;
}

}  // namespace concord
