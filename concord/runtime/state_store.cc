#include "concord/runtime/state_store.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <span>

#include "concord/base/error.h"
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
OwnedTensor joined(const OwnedTensor& parts, const TensorType& part, const Cut& cut) {
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
  if (!is_here()) return 0;
  if (!flat) return stored_bytes(part, layout);
  const std::int64_t numbers = is_flat() ? flat->part : flat->elements();
  return static_cast<std::size_t>(numbers) * size_of(part.dtype);
}

StateStore::StateStore(const Graph& graph, bool in_common, bool allocates,
                       const std::set<std::string>& offloaded,
                       const std::map<std::string, int>& older_versions) {
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
                                    .holders = state.holders,
                                    .role = state.role,
                                    .in_common = in_common && state.flat.has_value()});
    if (offloaded.contains(entry.name)) {
      CONCORD_CHECK(!state.flat || !state.flat->is_held_whole, "state \"{}\"", entry.name);
      entry.is_offloaded = stored_bytes(entry.part, entry.layout) >= kSmallestOffloaded;
      if (entry.is_offloaded) entry.in_common = false;
    }
    const auto older = older_versions.find(entry.name);
    if (older != older_versions.end()) {
      CONCORD_CHECK(!entry.in_common && !entry.is_offloaded, "state \"{}\"", entry.name);
      entry.has_versions = true;
    }
    std::size_t& end = entry.has_versions   ? version_bytes_
                       : entry.in_common    ? common_bytes_
                       : entry.is_offloaded ? offloaded_bytes_
                                            : own_bytes_;
    constexpr std::size_t kPage = 4096;
    const std::size_t alignment = entry.is_offloaded ? kPage : 64;
    entry.offset = end;
    end += (entry.bytes() + alignment - 1) / alignment * alignment;
  }
  add_older(older_versions);
  if (allocates) allocate();
}

// Each lies in its version where the parameter lies in the newest.
void StateStore::add_older(const std::map<std::string, int>& older_versions) {
  bool is_first = true;
  for (const auto& [name, older] : older_versions) {
    const Entry newest = entries_[by_name_.at(name)];
    if (newest.is_here()) {
      CONCORD_CHECK(is_first || older == older_, "older versions of \"{}\"", name);
      older_ = older;
      is_first = false;
    }
    for (int age = 1; age <= older; ++age) {
      Entry& entry = entries_.emplace_back(newest);
      entry.name = fmt::format("{}.previous{}", name, age);
      entry.role = State::Role::kOptimizer;
      entry.age = age;
      by_name_[entry.name] = entries_.size() - 1;
    }
  }
}

void StateStore::allocate(const std::filesystem::path& folder) {
  memory_ = Buffer(own_bytes_);
  if (version_bytes_ > 0) versions_ = Versions(version_bytes_, older_);
  offloaded_ = FileMemory(folder, offloaded_bytes_);
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
  return std::ranges::any_of(entries_, [](const Entry& entry) {
    return !entry.cuts.empty() || entry.is_flat() || entry.holders.has_value();
  });
}

// The numbers come together first, then the parts along the axis that cut last, then along the one
// before.
void StateStore::put_together(const Entry& entry, const Collect& collect,
                              std::byte* destination) const {
  OwnedTensor numbers;
  const std::byte* stored = address(entry);
  if (entry.is_flat()) {
    const TensorType type{entry.part.dtype, {entry.flat->elements()}};
    if (!collect(entry.flat->axis, {stored, entry.bytes()}, numbers, type)) return;
    stored = numbers.view().data;
  }
  if (entry.cuts.empty()) return from_layout(entry.type, entry.layout, stored, destination);
  OwnedTensor part(entry.part);
  from_layout(entry.part, entry.layout, stored, part.view().data);
  for (auto cut = entry.cuts.rbegin(); cut != entry.cuts.rend(); ++cut) {
    OwnedTensor parts;
    const TensorType type{part.type().dtype, stacked(part.type().shape, cut->ranks)};
    if (!collect(cut->axis, bytes_of(part), parts, type)) return;
    part = joined(parts, part.type(), *cut);
  }
  std::memcpy(destination, part.view().data, entry.type.bytes());
}

void StateStore::read(const Entry& entry, std::byte* destination) const {
  const auto collect = [&](const std::string& axis, std::span<const std::byte> in, OwnedTensor& out,
                           const TensorType& type) {
    out = OwnedTensor(type);
    axes_.at(axis)->run(comm::all_gather(in, bytes_of(out), comm::Label(entry.name)));
    return true;
  };
  if (entry.is_here()) {
    put_together(entry, collect, destination);
    release(entry);
  }
  if (!entry.holders) return;
  axes_.at(entry.holders->axis)
      ->run(comm::broadcast({destination, entry.type.bytes()}, entry.holders->ranks[0],
                            comm::Label(entry.name)));
}

void StateStore::gather(const Entry& entry, const std::map<std::string, int>& root,
                        std::byte* destination) const {
  if (!entry.holders) return gather_here(entry, root, destination);
  comm::Communicator& line = *axes_.at(entry.holders->axis);
  const int to = root.at(entry.holders->axis);
  const int from = entry.holders->has(to) ? to : entry.holders->ranks[0];
  std::map<std::string, int> root_there = root;
  root_there[entry.holders->axis] = from;
  const bool is_beside_root = std::ranges::all_of(axes_, [&](const auto& axis) {
    return axis.second == &line || axis.second->rank() == root.at(axis.first);
  });
  const bool sends = from != to && is_beside_root && line.rank() == from;
  OwnedTensor on_its_way;
  if (sends) {
    on_its_way = OwnedTensor(entry.type);
    destination = on_its_way.view().data;
  }
  if (line.rank() == from) gather_here(entry, root_there, destination);
  if (sends) line.run(comm::send(bytes_of(on_its_way), to, comm::Label(entry.name)));
  if (from != to && is_beside_root && line.rank() == to) {
    line.run(comm::receive({destination, entry.type.bytes()}, from, comm::Label(entry.name)));
  }
}

void StateStore::gather_here(const Entry& entry, const std::map<std::string, int>& root,
                             std::byte* destination) const {
  const auto is_at_root = [&](const std::string& axis) {
    return axes_.at(axis)->rank() == root.at(axis);
  };
  // Along other axes ranks have the same: those beside the root are enough.
  const auto divides = [&](const std::string& axis) {
    return (entry.is_flat() && entry.flat->axis == axis) ||
           std::ranges::find(entry.cuts, axis, &Cut::axis) != entry.cuts.end();
  };
  for (const auto& [axis, ranks] : axes_) {
    if (!divides(axis) && !is_at_root(axis)) return;
  }
  const auto collect = [&](const std::string& axis, std::span<const std::byte> in, OwnedTensor& out,
                           const TensorType& type) {
    const bool is_root = is_at_root(axis);
    if (is_root) out = OwnedTensor(type);
    const std::span<std::byte> room = is_root ? bytes_of(out) : std::span<std::byte>();
    axes_.at(axis)->run(comm::gather(in, room, root.at(axis), comm::Label(entry.name)));
    return is_root;
  };
  put_together(entry, collect, destination);
  release(entry);
}

void StateStore::write(const Entry& entry, const std::byte* source) {
  changed();
  if (!entry.is_here() || (entry.in_common && !writes_common_)) return;
  OwnedTensor part;
  if (!entry.cuts.empty()) {
    part = OwnedTensor(entry.type);
    std::memcpy(part.view().data, source, entry.type.bytes());
    for (const Cut& cut : entry.cuts) part = part_of(part, cut);
    source = part.view().data;
  }
  if (!entry.is_flat()) {
    to_layout(entry.part, entry.layout, source, address(entry));
    return release(entry);
  }
  OwnedTensor numbers({entry.part.dtype, {entry.flat->elements()}});
  to_layout(entry.part, entry.layout, source, numbers.view().data);
  std::memcpy(address(entry),
              numbers.view().data + static_cast<std::size_t>(entry.flat->index) * entry.bytes(),
              entry.bytes());
  release(entry);
}

OwnedTensor StateStore::read(const Entry& entry) const {
  OwnedTensor tensor(entry.type);
  read(entry, tensor.view().data);
  return tensor;
}

}  // namespace concord
