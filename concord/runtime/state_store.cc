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

std::size_t StateStore::Entry::bytes() const {
  if (!flat) return stored_bytes(part, layout);
  const std::int64_t numbers = is_flat() ? flat->part : flat->elements();
  return static_cast<std::size_t>(numbers) * size_of(part.dtype);
}

StateStore::StateStore(const Graph& graph, bool in_common, bool allocates) {
  for (const State& state : graph.states) {
    const Value& value = graph.value(state.value);
    by_name_[value.name] = entries_.size();
    Entry& entry =
        entries_.emplace_back(Entry{.name = value.name,
                                    .type = whole_type(graph, state),
                                    .part = state.flat ? state.flat->type : value.type,
                                    .cuts = state.cuts,
                                    .layout = state.flat ? state.flat->layout : value.layout,
                                    .flat = state.flat,
                                    .role = state.role,
                                    .in_common = in_common && state.flat.has_value()});
    std::size_t& end = entry.in_common ? common_bytes_ : own_bytes_;
    entry.offset = end;
    end += (entry.bytes() + 63) / 64 * 64;
  }
  if (allocates) allocate();
}

void StateStore::share() {
  if (common_bytes_ == 0) return;
  comm::Communicator& ranks = *axes_.at("data");
  common_ = ranks.common(common_bytes_);
  writes_common_ = ranks.is_first();
}

std::size_t StateStore::offset_of(const Entry& entry, const TensorType& value) const {
  if (!entry.in_common || entry.flat->is_held_whole || value == entry.part) return entry.offset;
  return entry.offset +
         static_cast<std::size_t>(entry.flat->index * entry.flat->part) * size_of(entry.part.dtype);
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
  return std::ranges::any_of(
      entries_, [](const Entry& entry) { return !entry.cuts.empty() || entry.is_flat(); });
}

// The numbers come together first, then the parts along the axis that cut last, then along the one
// before.
void StateStore::read(const Entry& entry, std::byte* destination) const {
  OwnedTensor numbers;
  const std::byte* stored = address(entry);
  if (entry.is_flat()) {
    numbers = OwnedTensor({entry.part.dtype, {entry.flat->elements()}});
    axes_.at(entry.flat->axis)
        ->run(
            comm::all_gather({stored, entry.bytes()}, bytes_of(numbers), comm::Label(entry.name)));
    stored = numbers.view().data;
  }
  if (entry.cuts.empty()) return from_layout(entry.type, entry.layout, stored, destination);
  OwnedTensor part(entry.part);
  from_layout(entry.part, entry.layout, stored, part.view().data);
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
  if (entry.in_common && !writes_common_) return;
  OwnedTensor part;
  if (!entry.cuts.empty()) {
    part = OwnedTensor(entry.type);
    std::memcpy(part.view().data, source, entry.type.bytes());
    for (const Cut& cut : entry.cuts) part = part_of(part, cut);
    source = part.view().data;
  }
  if (!entry.is_flat()) return to_layout(entry.part, entry.layout, source, address(entry));
  OwnedTensor numbers({entry.part.dtype, {entry.flat->elements()}});
  to_layout(entry.part, entry.layout, source, numbers.view().data);
  std::memcpy(address(entry),
              numbers.view().data + static_cast<std::size_t>(entry.flat->index) * entry.bytes(),
              entry.bytes());
}

OwnedTensor StateStore::read(const Entry& entry) const {
  OwnedTensor tensor(entry.type);
  read(entry, tensor.view().data);
  return tensor;
}

}  // namespace concord
