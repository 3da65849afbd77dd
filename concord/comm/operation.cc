#include "concord/comm/operation.h"

#include <functional>

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
          .out_bytes = out.size(),
          .peer = peer};
}

}  // namespace

std::string_view name_of(Kind kind) {
  constexpr std::string_view kNames[] = {
      "barrier", "agreement",      "sum",        "scattered sum", "all-reduce",
      "maximum", "reduce-scatter", "all-gather", "broadcast",     "all-to-all",
      "gather",  "send",           "receive",    "encoded sum"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string name_of(Kind kind, const Label& label) {
  if (label.text().empty()) return std::string(name_of(kind));
  return fmt::format("{} of {}", name_of(kind), label.text());
}

void check_operation(const Operation& op, int rank, int size) {
  const auto refuse = [&](const std::string& why) {
    fail("{}: {}", name_of(op.kind, op.label), why);
  };
  const bool is_message = op.kind == Kind::kSend || op.kind == Kind::kReceive;
  if (op.peer < 0 || op.peer >= size || (is_message && op.peer == rank)) {
    refuse(fmt::format("rank {} of {}; expected one from 0 on{}", op.peer, size,
                       is_message ? ", and not this one" : ""));
  }
  for (std::size_t p = 1; p < op.parts.size(); ++p) {
    if (are_halves(op.parts[p - 1].node, op.parts[p].node)) {
      refuse("two parts are halves of a node; expected their sum in place of them");
    }
  }
  const auto ranks = static_cast<std::size_t>(size);
  std::size_t unit = 1, expected = op.bytes;
  switch (op.kind) {
    case Kind::kReduceScatter:
      unit = ranks * sizeof(float);
      expected = op.bytes / ranks;
      break;
    case Kind::kAllToAll:
      unit = ranks;
      break;
    case Kind::kGather:
      if (op.peer != rank) return;
      [[fallthrough]];
    case Kind::kAllGather:
      expected = op.bytes * ranks;
      break;
    case Kind::kAllReduce:
    case Kind::kMaximum:
      break;
    default:
      return;
  }
  if (op.bytes % unit != 0) {
    refuse(
        fmt::format("{} bytes are given; expected a multiple of {}, a piece for each of {} ranks",
                    op.bytes, unit, size));
  }
  if (op.out_bytes != expected) {
    refuse(fmt::format("{} bytes are given and there is room for {}; expected {} of {} ranks",
                       op.bytes, op.out_bytes, expected, size));
  }
  const bool is_in_place =
      ((op.kind == Kind::kAllReduce || op.kind == Kind::kMaximum) && op.in == op.out) ||
      (op.kind == Kind::kAllGather && op.in == op.out + static_cast<std::size_t>(rank) * op.bytes);
  const bool overlaps = op.bytes > 0 && std::less<>()(op.in, op.out + op.out_bytes) &&
                        std::less<>()(op.out, op.in + op.bytes);
  if (overlaps && !is_in_place) {
    refuse("what is given and what comes out overlap; expected memory of its own for each");
  }
}

Call call_of(const Operation& operation, std::int64_t step, const Label& axis) {
  return {.kind = operation.kind,
          .peer = operation.peer,
          .step = step,
          .bytes = operation.bytes,
          .label = operation.label,
          .axis = axis};
}

std::string described(const Call& call) {
  const std::string_view axis = call.axis.text();
  return fmt::format("the {} of step {}{}{}", name_of(call.kind, call.label), call.step,
                     axis.empty() ? "" : " along ", axis);
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

Operation tree_scatter(std::span<const Part> parts, std::span<const Piece> pieces,
                       std::size_t bytes, std::byte* out, Label label) {
  Operation operation = tree_sum(parts, /*offset=*/0, bytes, out, label);
  operation.kind = Kind::kTreeScatter;
  operation.pieces = pieces;
  return operation;
}

Operation barrier(Label label) { return {.kind = Kind::kBarrier, .label = label}; }

Operation agreement(std::uint32_t flags, Label label) {
  return {.kind = Kind::kAgreement, .label = label, .flags = flags};
}

Operation all_reduce(std::span<const float> in, std::span<float> out, Label label) {
  return exchange(Kind::kAllReduce, bytes_of(in), std::as_writable_bytes(out), label);
}

Operation maximum(std::span<const float> in, std::span<float> out, Label label) {
  return exchange(Kind::kMaximum, bytes_of(in), std::as_writable_bytes(out), label);
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
  return exchange(Kind::kAllToAll, in, out, label);
}

Operation gather(std::span<const std::byte> in, std::span<std::byte> out, int root, Label label) {
  return exchange(Kind::kGather, in, out, label, root);
}

Operation send(std::span<const std::byte> in, int to, Label label) {
  return exchange(Kind::kSend, in, {}, label, to);
}

Operation in_rounds(Rounds& rounds, Label label) {
  return {.kind = Kind::kRounds, .label = label, .rounds = &rounds};
}

Operation receive(std::span<std::byte> out, int from, Label label) {
  return {.kind = Kind::kReceive,
          .label = label,
          .bytes = out.size(),
          .out = out.data(),
          .out_bytes = out.size(),
          .peer = from};
}

}  // namespace concord::comm
