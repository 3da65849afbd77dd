#include "concord/kernels/kernel.h"

namespace concord {

Signature signature_of(const Graph& graph, const Node& node) {
  Signature signature{node, {}, {}};
  for (const ValueId id : node.inputs) {
    signature.inputs.push_back({graph.type(id), graph.value(id).layout});
  }
  for (const ValueId id : node.outputs) {
    signature.outputs.push_back({graph.type(id), graph.value(id).layout});
  }
  return signature;
}

}  // namespace concord
