#include "concord/comm/operation.h"

#include "concord/base/error.h"

namespace concord::comm {
namespace {

using Kind = Operation::Kind;

std::span<const std::byte> bytes_of(std::span<const float> values) { return std::as_bytes(values); }

Operation exchange(Kind kind, std::span<const std::byte> in, std::span<std::byte> out,
                   const Label& label, int peer = 0) {
  return {.kind = kind,
          .label = label,
          .bytes = in.size(),
          .in = in.data(),
          .out = out.data(),
          .peer = peer};
}

}  // namespace

std::string_view name_of(Kind kind) {
  constexpr std::string_view kNames[] = {"barrier",        "agreement",  "sum",       "all-reduce",
                                         "reduce-scatter", "all-gather", "broadcast", "all-to-all",
                                         "gather",         "send",       "receive"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string name_of(Kind kind, const Label& label) {
  if (label.text().empty()) return std::string(name_of(kind));
  return fmt::format("{} of {}", name_of(kind), label.text());
}

Call call_of(const Operation& operation, std::int64_t step) {
  return {.kind = operation.kind,
          .peer = operation.peer,
          .step = step,
          .bytes = operation.bytes,
          .label = operation.label};
}

std::string described(const Call& call) {
  return fmt::format("the {} of step {}", name_of(call.kind, call.label), call.step);
}

std::string disagreement(int rank, const Call& call, int other_rank, const Call& other) {
  if (other.kind != call.kind || other.step != call.step || other.peer != call.peer ||
      other.label.text() != call.label.text()) {
    return fmt::format("rank {} calls {} while rank {} calls {}", rank, described(call), other_rank,
                       described(other));
  }
  if (other.bytes != call.bytes) {
    return fmt::format("rank {} gives {} bytes to {}, and rank {} gives {} to {}", rank, call.bytes,
                       described(call), other_rank, other.bytes, described(other));
  }
  return "";
}

Operation tree_sum(std::span<const Part> parts, std::size_t offset, std::size_t bytes,
                   std::byte* out, Label label) {
  return {.kind = Kind::kTreeSum,
          .label = label,
          .bytes = bytes,
          .out = out,
          .parts = parts,
          .offset = offset};
}

Operation barrier(Label label) { return {.kind = Kind::kBarrier, .label = label}; }

Operation agreement(std::uint32_t flags, Label label) {
  return {.kind = Kind::kAgreement, .label = label, .flags = flags};
}

Operation all_reduce(std::span<const float> in, std::span<float> out, Label label) {
  CONCORD_CHECK(in.size() == out.size());
  return exchange(Kind::kAllReduce, bytes_of(in), std::as_writable_bytes(out), label);
}

Operation reduce_scatter(std::span<const float> in, std::span<float> out, Label label) {
  return exchange(Kind::kReduceScatter, bytes_of(in), std::as_writable_bytes(out), label);
}

Operation all_gather(std::span<const std::byte> in, std::span<std::byte> out, Label label) {
  return exchange(Kind::kAllGather, in, out, label);
}

Operation broadcast(std::span<std::byte> data, int root, Label label) {
  return exchange(Kind::kBroadcast, data, data, label, root);
}

Operation all_to_all(std::span<const std::byte> in, std::span<std::byte> out, Label label) {
  CONCORD_CHECK(in.size() == out.size());
  return exchange(Kind::kAllToAll, in, out, label);
}

Operation gather(std::span<const std::byte> in, std::span<std::byte> out, int root, Label label) {
  return exchange(Kind::kGather, in, out, label, root);
}

Operation send(std::span<const std::byte> in, int to, Label label) {
  return exchange(Kind::kSend, in, {}, label, to);
}

Operation receive(std::span<std::byte> out, int from, Label label) {
  return {
      .kind = Kind::kReceive, .label = label, .bytes = out.size(), .out = out.data(), .peer = from};
}

}  // namespace concord::comm
