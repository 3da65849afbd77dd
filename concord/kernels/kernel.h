// How ops run: the interface between a node of the graph and a kernel of a backend.
//
// A backend registers one KernelRule for each op it can run. Compiling a graph asks the rule twice:
// first which layouts the node wants (so that blocked layouts flow from op to op), then for the
// kernel itself. A kernel is compiled once and run many times on raw pointers.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/graph.h"

namespace concord {

// One operand of a node: what a kernel is specialised for.
struct Operand {
  TensorType type;
  Layout layout;
};

struct Signature {
  Node node;
  std::vector<Operand> inputs;
  std::vector<Operand> outputs;
};

// Of a node of a graph with layouts.
Signature signature_of(const Graph& graph, const Node& node);

class Kernel {
 public:
  virtual ~Kernel() = default;
  // `operands`: inputs, then outputs, then the scratchpad if `scratchpad_bytes()` is not zero.
  // Every operand is aligned to 64 bytes. Must not allocate. Called by one thread at a time.
  virtual void run(std::span<std::byte* const> operands) = 0;
  // Bytes of memory the kernel may use while it runs and forget after.
  virtual std::size_t scratchpad_bytes() const { return 0; }
};

// Which of several equivalent algorithms each shape uses. Made once for a job, the same on every
// rank, saved with the run: kernel choices may change bits. Keys are written by the kernels and
// hold everything the choice depends on.
using KernelChoices = std::map<std::string, std::string, std::less<>>;

// What a kernel rule may depend on besides the node.
struct KernelPolicy {
  int threads = 1;
  bool winograd = true;  // may 3x3 convolutions use Winograd's algorithm (faster, larger error)
  bool measure = true;   // may unknown choices be made by timing the candidates
  // Some rows or columns of a product have the bits that they have in the whole product: its
  // kernel is one whose order of summation does not depend on how many there are.
  bool same_in_parts = false;
  KernelChoices choices;  // made so far; rules look here first and record what they decide
};

// Layouts a node wants for its operands. Asked with the layouts in which the inputs come; a nullopt
// input is a state whose layout is still free.
struct LayoutWish {
  std::vector<Layout> inputs;
  std::vector<Layout> outputs;
};

struct KernelRule {
  std::string op;

  // Null: every operand row-major.
  LayoutWish (*layouts)(const Signature& signature, std::span<const std::optional<Layout>> inputs,
                        KernelPolicy& policy) = nullptr;

  std::unique_ptr<Kernel> (*make)(const Signature& signature, KernelPolicy& policy) = nullptr;

  // Output 0 is input 0 byte for byte: where they can share memory, no kernel is run.
  bool view = false;

  // Whether output `o` may occupy the memory of input `i`. Null: never.
  bool (*in_place)(const Signature& signature, std::size_t o, std::size_t i) = nullptr;
};

}  // namespace concord
