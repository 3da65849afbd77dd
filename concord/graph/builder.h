// GraphBuilder: adds inputs, states and nodes to a graph, infers types, and names layers.
// Not thread-safe. The graph outlives the builder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "concord/graph/graph.h"

namespace concord {

class GraphBuilder {
 public:
  explicit GraphBuilder(Graph& graph) : graph_(graph) {}

  Graph& graph() { return graph_; }
  // By value: adding a node moves the graph's values.
  TensorType type(ValueId value) const { return graph_.type(value); }
  Shape shape(ValueId value) const { return graph_.type(value).shape; }

  ValueId input(std::string name, TensorType type, Input::Kind kind = Input::Kind::kBatch);
  // A state named `name` inside the current scope. Throws Error when the name is taken.
  ValueId state(std::string_view name, TensorType type, State::Role role, Initializer initializer,
                bool decay = true);
  void set_next(ValueId state, ValueId next);
  void output(std::string name, ValueId value);

  // Adds a node and returns its outputs. Throws Error that names the layer and the op where the
  // inputs do not fit the op's shape rule.
  std::vector<ValueId> node(std::string_view op, std::vector<ValueId> inputs,
                            Attributes attributes = {});
  // The same for an op with a single output.
  ValueId node1(std::string_view op, std::vector<ValueId> inputs, Attributes attributes = {});

  // Names entered between here and the end of the scope get "name." before them.
  class Scope {
   public:
    Scope(GraphBuilder& builder, std::string_view name);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    GraphBuilder& builder_;
    std::size_t previous_length_;
  };
  [[nodiscard]] Scope scope(std::string_view name) { return Scope(*this, name); }
  const std::string& scope_name() const { return scope_; }
  // Nodes that a gradient rule adds belong to the layer they differentiate.
  void set_scope_name(std::string name) { scope_ = std::move(name); }

 private:
  ValueId add_value(TensorType type, std::string name, NodeId producer);
  std::string qualified(std::string_view name) const;

  Graph& graph_;
  std::string scope_;
};

}  // namespace concord
