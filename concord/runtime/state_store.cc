#include "concord/runtime/state_store.h"

#include "concord/tensor/relayout.h"

namespace concord {

StateStore::StateStore(const Graph& graph, const std::set<std::string>& in_common,
                       const Share& share)
    : share_(share) {
  std::size_t own_bytes = 0;
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    const bool is_common = in_common.contains(value.name);
    std::size_t& end = is_common ? common_bytes_ : own_bytes;
    by_name_[value.name] = entries_.size();
    entries_.push_back({value.name, value.type, value.layout, state.role, is_common, end});
    end += (stored_bytes(value.type, value.layout) + 63) / 64 * 64;
  }
  memory_ = Buffer(own_bytes);
}

void StateStore::share(comm::Communicator& ranks) {
  if (common_bytes_ > 0) common_ = ranks.common(common_bytes_);
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
  from_layout(entry.type, entry.layout, address(entry), destination);
}

void StateStore::write(const Entry& entry, const std::byte* source) {
  changed();
  if (entry.in_common && share_.index > 0) return;
  to_layout(entry.type, entry.layout, source, address(entry));
}

OwnedTensor StateStore::read(const Entry& entry) const {
  OwnedTensor tensor(entry.type);
  read(entry, tensor.view().data);
  return tensor;
}

}  // namespace concord
