// What an engine's states begin with, and which of them evaluations read.
#include "concord/nn/initialize.h"
#include "concord/train/engine.h"

namespace concord::train {

void Engine::initialize_states(const Graph& graph) {
  for (const State& state : graph.states) {
    const StateStore::Entry& entry = *states_->find(graph.value(state.value).name);
    OwnedTensor initial(entry.type);
    nn::initialize(graph, state, options_.seed, initial.as<float>());
    states_->write(entry, initial.view().data);
  }
  start_averages();
}

const StateStore::Entry* average_of(const StateStore& states, const StateStore::Entry& parameter) {
  if (parameter.role != State::Role::kParameter) return nullptr;
  return states.find(parameter.name + std::string(kAverageSuffix));
}

void Engine::start_averages() {
  for (const StateStore::Entry& entry : states_->entries()) {
    const StateStore::Entry* average = average_of(*states_, entry);
    if (average != nullptr) states_->write(*average, states_->read(entry).view().data);
  }
  if (states_->has_versions()) states_->versions().restart();
}

// The graph's parameters become the averages of the same.
void Engine::read_averages(Graph& graph) const {
  for (const State& state : graph.states) {
    std::string& name = graph.value(state.value).name;
    const StateStore::Entry* entry = states_->find(name);
    const StateStore::Entry* average = entry == nullptr ? nullptr : average_of(*states_, *entry);
    if (average != nullptr) name = average->name;
  }
}

}  // namespace concord::train
