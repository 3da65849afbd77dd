#include "concord/runtime/state_store.h"

#include "concord/tensor/relayout.h"

namespace concord {

StateStore::StateStore(const Graph& graph) {
  std::size_t bytes = 0;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    by_name_[value.name] = entries_.size();
    entries_.push_back({value.name, value.type, value.layout, state.role, bytes});
    bytes += (stored_bytes(value.type, value.layout) + 63) / 64 * 64;
  }
  memory_ = Buffer(bytes);
}

const StateStore::Entry* StateStore::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

std::map<std::string, Layout> StateStore::layouts() const {
  std::map<std::string, Layout> layouts;
  for (const Entry& entry : entries_) layouts[entry.name] = entry.layout;
  return layouts;
}

void StateStore::read(const Entry& entry, std::byte* destination) const {
  from_layout(entry.type, entry.layout, memory_.data() + entry.offset, destination);
}

void StateStore::write(const Entry& entry, const std::byte* source) {
  to_layout(entry.type, entry.layout, source, memory_.data() + entry.offset);
  changed();
}

OwnedTensor StateStore::read(const Entry& entry) const {
  OwnedTensor tensor(entry.type);
  read(entry, tensor.view().data);
  return tensor;
}

}  // namespace concord
