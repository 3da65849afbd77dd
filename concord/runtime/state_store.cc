#include "concord/runtime/state_store.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "concord/graph/shard_copies.h"
#include "concord/tensor/relayout.h"

namespace concord {
namespace {

std::span<std::byte> bytes_of(OwnedTensor& tensor) {
  return {tensor.view().data, tensor.type().bytes()};
}

// So many tensors of this shape, one after the other.
Shape stacked(const Shape& shape, int count) {
  std::vector<std::int64_t> dims = {count};
  dims.insert(dims.end(), shape.begin(), shape.end());
  return Shape(std::move(dims));
}

OwnedTensor part_of(const OwnedTensor& whole, const Cut& cut) {
  const TensorType& type = whole.type();
  OwnedTensor part({type.dtype, shard_shape(type.shape, cut.split, cut.ranks)});
  for (const BlockCopy& copy : shard_copies(type, cut.split, cut.ranks, cut.index)) {
    copy.run(whole.view().data, part.view().data);
  }
  return part;
}

// `parts`: those of all ranks, of this type each, one after the other.
OwnedTensor put_together(const OwnedTensor& parts, const TensorType& part, const Cut& cut) {
  const TensorType type{part.dtype, whole_shape(part.shape, cut.split, cut.ranks)};
  OwnedTensor whole(type);
  for (int r = 0; r < cut.ranks; ++r) {
    const std::byte* const own = parts.view().data + static_cast<std::size_t>(r) * part.bytes();
    for (const BlockCopy& copy : shard_copies(type, cut.split, cut.ranks, r)) {
      reversed(copy).run(own, whole.view().data);
    }
  }
  return whole;
}

}  // namespace

StateStore::StateStore(const Graph& graph, const std::set<std::string>& in_common,
                       const Share& share, bool allocates)
    : share_(share) {
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    const bool is_common = in_common.contains(value.name);
    std::size_t& end = is_common ? common_bytes_ : own_bytes_;
    by_name_[value.name] = entries_.size();
    entries_.push_back({.name = value.name,
                        .type = {value.type.dtype, whole_shape(value.type.shape, state.cuts)},
                        .part = value.type,
                        .cuts = state.cuts,
                        .layout = value.layout,
                        .role = state.role,
                        .in_common = is_common,
                        .offset = end});
    end += (stored_bytes(value.type, value.layout) + 63) / 64 * 64;
  }
  if (allocates) allocate();
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

bool StateStore::is_divided() const {
  return std::ranges::any_of(entries_, [](const Entry& entry) { return !entry.cuts.empty(); });
}

// The parts come together along the axis that cut last, then along the one before.
void StateStore::read(const Entry& entry, std::byte* destination) const {
  if (entry.cuts.empty()) {
    return from_layout(entry.type, entry.layout, address(entry), destination);
  }
  OwnedTensor part(entry.part);
  from_layout(entry.part, entry.layout, address(entry), part.view().data);
  for (auto cut = entry.cuts.rbegin(); cut != entry.cuts.rend(); ++cut) {
    OwnedTensor parts({part.type().dtype, stacked(part.type().shape, cut->ranks)});
    axes_.at(cut->axis)->run(
        comm::all_gather(bytes_of(part), bytes_of(parts), comm::Label(entry.name)));
    part = put_together(parts, part.type(), *cut);
  }
  std::memcpy(destination, part.view().data, entry.type.bytes());
}

void StateStore::write(const Entry& entry, const std::byte* source) {
  changed();
  if (entry.in_common && share_.index > 0) return;
  if (entry.cuts.empty()) return to_layout(entry.type, entry.layout, source, address(entry));
  OwnedTensor part(entry.type);
  std::memcpy(part.view().data, source, entry.type.bytes());
  for (const Cut& cut : entry.cuts) part = part_of(part, cut);
  to_layout(entry.part, entry.layout, part.view().data, address(entry));
}

OwnedTensor StateStore::read(const Entry& entry) const {
  OwnedTensor tensor(entry.type);
  read(entry, tensor.view().data);
  return tensor;
}

}  // namespace concord
