// What every communicator must do, as the part of one rank in it: for tests, which run the ranks as
// threads and as processes. What is not as it should be throws Error.
#pragma once

#include <cmath>
#include <cstring>
#include <string_view>
#include <vector>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/comm/communicator.h"

namespace concord::comm {

// Of very different sizes: their sum depends on the order in which they are added.
inline float test_number(std::int64_t leaf, std::int64_t i) {
  const std::uint32_t bits =
      RandomStream{.stream = static_cast<std::uint32_t>(leaf)}.bits(static_cast<std::uint64_t>(i));
  return std::ldexp(uniform01(bits), static_cast<int>(bits % 31)) * (bits % 2 == 0 ? 1.0f : -1.0f);
}

inline std::vector<float> test_numbers(std::int64_t leaf, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = test_number(leaf, static_cast<std::int64_t>(i));
  }
  return values;
}

// Of leaves `first` to `end`, along the canonical tree.
inline std::vector<float> test_sum(std::int64_t first, std::int64_t end, std::size_t count) {
  std::vector<std::vector<float>> values;
  std::vector<Subtree> nodes;
  for (std::int64_t leaf = first; leaf < end; ++leaf) {
    values.push_back(test_numbers(leaf, count));
    nodes.push_back({0, leaf - first});
  }
  Joins joins;
  for (const Join& join : joins.of(nodes)) {
    for (std::size_t i = 0; i < count; ++i) values[join.into][i] += values[join.from][i];
  }
  return values[0];
}

inline void expect_equal(std::span<const float> given, std::span<const float> expected,
                         std::string_view what) {
  if (given.size() != expected.size() ||
      std::memcmp(given.data(), expected.data(), given.size_bytes()) != 0) {
    fail("{} has other bits", what);
  }
}

// The tree sum of leaves, of which rank r holds those from ends[r - 1] to ends[r].
inline void check_tree_sum(Communicator& ranks, const std::vector<std::int64_t>& ends,
                           std::size_t count) {
  const auto rank = static_cast<std::size_t>(ranks.rank());
  const std::vector<Subtree> nodes = subtrees_of(rank == 0 ? 0 : ends[rank - 1], ends[rank]);
  const std::size_t bytes = count * sizeof(float);
  std::byte* const own = ranks.share((nodes.size() + 1) * bytes);
  std::vector<Part> parts;
  for (const Subtree& node : nodes) {
    const std::int64_t first = node.index << node.height;
    parts.push_back({node, own + parts.size() * bytes});
    std::ranges::copy(test_sum(first, first + (std::int64_t{1} << node.height), count),
                      reinterpret_cast<float*>(parts.back().data));
  }
  const auto* const sum =
      reinterpret_cast<const float*>(ranks.run(tree_sum(parts, 0, bytes, own, "numbers")).sum);
  expect_equal({sum, count}, test_sum(0, ends.back(), count), "a tree sum");
  ranks.barrier();
}

// The same, scattered: tensors of `count` numbers for each rank and of 16, of which each gets its
// part in memory of its own, and of the second in place too.
inline void check_tree_scatter(Communicator& ranks, const std::vector<std::int64_t>& ends,
                               std::size_t count) {
  const auto rank = static_cast<std::size_t>(ranks.rank());
  const auto size = static_cast<std::size_t>(ranks.size());
  const std::size_t all = size * (count + 16);
  const std::vector<Subtree> nodes = subtrees_of(rank == 0 ? 0 : ends[rank - 1], ends[rank]);
  auto* const own = reinterpret_cast<float*>(ranks.share((nodes.size() + 1) * all * sizeof(float)));
  std::vector<Part> parts;
  for (const Subtree& node : nodes) {
    float* const data = own + parts.size() * all;
    const std::int64_t first = node.index << node.height;
    std::ranges::copy(test_sum(first, first + (std::int64_t{1} << node.height), all), data);
    parts.push_back({node, reinterpret_cast<std::byte*>(data)});
  }
  const std::vector<float> expected = test_sum(0, ends.back(), all);
  const std::size_t bytes = sizeof(float);
  std::vector<float> out(count + 16);
  const std::vector<Piece> pieces = {{0, count * bytes, 16 * bytes},
                                     {size * count * bytes, 16 * bytes, 0}};
  ranks.run(tree_scatter(parts, pieces, all * bytes, reinterpret_cast<std::byte*>(out.data()),
                         "numbers"));
  expect_equal(std::span(out).subspan(16), std::span(expected).subspan(rank * count, count),
               "a part of a scattered sum");
  const std::size_t second = size * count + rank * 16;
  expect_equal(std::span(out).first(16), std::span(expected).subspan(second, 16),
               "a part of the second tensor of a scattered sum");
  const std::vector<Piece> in_place = {{pieces[1].offset, 16 * bytes, second * bytes}};
  ranks.run(tree_scatter(parts, in_place, size * 16 * bytes, reinterpret_cast<std::byte*>(own)));
  expect_equal({own + second, 16}, std::span(expected).subspan(second, 16), "a part in place");
  ranks.barrier();
}

// All operations on vectors of so many numbers, in memory that others can read where it lies, or
// not.
inline void check_collectives(Communicator& ranks, std::size_t count, bool shared) {
  const int size = ranks.size();
  const auto n = static_cast<std::size_t>(size), r = static_cast<std::size_t>(ranks.rank());
  std::vector<float> memory[2];
  const auto memory_for = [&](std::vector<float>& own) -> std::span<float> {
    if (shared) {
      return {reinterpret_cast<float*>(ranks.share(count * n * sizeof(float))), count * n};
    }
    own.resize(count * n);
    return own;
  };
  const auto in = memory_for(memory[0]), out = memory_for(memory[1]);
  const auto one_in = in.first(count), one_out = out.first(count);
  const auto fill = [&](std::size_t values) {
    std::ranges::copy(test_numbers(ranks.rank(), values), in.begin());
    ranks.barrier();
  };
  const auto in_a_row = [&] {
    std::vector<float> row;
    for (int s = 0; s < size; ++s) {
      const std::vector<float> values = test_numbers(s, count);
      row.insert(row.end(), values.begin(), values.end());
    }
    return row;
  };

  fill(count);
  ranks.run(all_reduce(one_in, one_out));
  expect_equal(one_out, test_sum(0, size, count), "an all-reduce");
  expect_equal(one_in, test_numbers(ranks.rank(), count), "what an all-reduce was given");
  ranks.run(all_reduce(one_in, one_in));
  expect_equal(one_in, test_sum(0, size, count), "an all-reduce in place");
  // Of each number a rank in turn has none, and all do of the first.
  const auto with_gaps = [&](int rank) {
    std::vector<float> values = test_numbers(rank, count);
    for (std::size_t i = 0; i < count; ++i) {
      if (i == 0 || i % 7 == static_cast<std::size_t>(rank)) values[i] = std::nanf("");
    }
    return values;
  };
  std::vector<float> largest = with_gaps(0);
  for (int s = 1; s < size; ++s) {
    const std::vector<float> values = with_gaps(s);
    for (std::size_t i = 0; i < count; ++i) {
      if (std::isnan(values[i]) || values[i] > largest[i]) largest[i] = values[i];
    }
  }
  for (const bool in_place : {false, true}) {
    ranks.barrier();
    std::ranges::copy(with_gaps(ranks.rank()), in.begin());
    ranks.barrier();
    ranks.run(maximum(one_in, in_place ? one_in : one_out));
    expect_equal(in_place ? one_in : one_out, largest, "a maximum");
  }
  ranks.barrier();
  fill(count * n);
  ranks.run(reduce_scatter(in, one_out));
  const std::vector<float> sum = test_sum(0, size, count * n);
  expect_equal(one_out, std::span(sum).subspan(r * count, count), "a reduce-scatter");
  ranks.run(all_to_all(std::as_bytes(in), std::as_writable_bytes(out)));
  for (std::size_t s = 0; s < n; ++s) {
    const std::vector<float> theirs = test_numbers(static_cast<std::int64_t>(s), count * n);
    expect_equal(out.subspan(s * count, count), std::span(theirs).subspan(r * count, count),
                 "an all-to-all");
  }
  fill(count);
  ranks.run(all_gather(std::as_bytes(one_in), std::as_writable_bytes(out)));
  expect_equal(out, in_a_row(), "an all-gather");
  std::ranges::fill(out, 0.0f);
  std::ranges::copy(one_in, out.begin() + static_cast<std::ptrdiff_t>(r * count));
  ranks.run(all_gather(std::as_bytes(out.subspan(r * count, count)), std::as_writable_bytes(out)));
  expect_equal(out, in_a_row(), "an all-gather in place");
  std::ranges::fill(out, 0.0f);
  ranks.run(gather(std::as_bytes(one_in), std::as_writable_bytes(out), size - 1));
  if (ranks.rank() == size - 1) expect_equal(out, in_a_row(), "a gather");
  ranks.run(broadcast(std::as_writable_bytes(one_in), size / 2));
  expect_equal(one_in, test_numbers(size / 2, count), "a broadcast");
  fill(count);
  const int neighbour = ranks.rank() ^ 1;
  for (const bool even_sends : {true, false}) {
    if (neighbour >= size) break;
    const bool sends = (ranks.rank() % 2 == 0) == even_sends;
    ranks.run(sends ? send(std::as_bytes(one_in), neighbour)
                    : receive(std::as_writable_bytes(one_out), neighbour));
    if (!sends) expect_equal(one_out, test_numbers(neighbour, count), "a message");
  }
  const auto rank = static_cast<std::uint32_t>(ranks.rank());
  if (ranks.any_of(1u << rank) != (1u << size) - 1) fail("an agreement has other bits");
}

// All ranks and, along each axis of a mesh of them, the groups, one after another and at once.
inline void check_groups(Communicator& ranks, const Mesh& mesh, std::size_t count) {
  for (const MeshAxis& axis : mesh.axes) {
    Communicator& group = ranks.split(mesh, axis.name);
    if (&ranks.split(mesh, axis.name) != &group) fail("a second split makes another group");
    if (group.size() != axis.extent || group.rank() != mesh.coordinate(ranks.rank(), axis.name)) {
      fail("rank {} of {} along {}", group.rank(), group.size(), axis.name);
    }
    check_collectives(group, count, /*shared=*/false);
    check_collectives(group, count, /*shared=*/true);
    std::vector<int> members(static_cast<std::size_t>(group.size()));
    const int own = ranks.rank();
    group.run(
        all_gather(std::as_bytes(std::span(&own, 1)), std::as_writable_bytes(std::span(members))));
    if (members != mesh.ranks_along(own, axis.name)) fail("a group has other ranks");
  }
  for (int round = 0; round < 20; ++round) {
    std::vector<float> of_all = test_numbers(ranks.rank(), count);
    const Ticket sum = ranks.start(all_reduce(of_all, of_all, "numbers of all"));
    for (const MeshAxis& axis : mesh.axes) {
      Communicator& group = ranks.split(mesh, axis.name);
      std::vector<float> values = test_numbers(group.rank(), count);
      group.run(all_reduce(values, values, "numbers"));
      expect_equal(values, test_sum(0, group.size(), count), "a sum along an axis");
    }
    ranks.wait(sum);
    expect_equal(of_all, test_sum(0, ranks.size(), count), "a sum beside others");
  }
}

}  // namespace concord::comm
