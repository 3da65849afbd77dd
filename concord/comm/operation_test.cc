#include "concord/comm/operation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "concord/base/error.h"

namespace concord::comm {
namespace {

using testing::HasSubstr;

void expect_refused(const Operation& operation, const char* why) {
  EXPECT_THAT([&] { check_operation(operation, 1, 3); },
              testing::ThrowsMessage<Error>(HasSubstr(why)));
}

TEST(Operation, WhatDoesNotFitSoManyRanksIsRefused) {
  std::array<float, 12> in{}, out{};
  std::array<std::byte, 12> from{}, to{};
  const auto numbers_in = [&](std::size_t n) { return std::span<const float>(in).first(n); };
  const auto numbers_out = [&](std::size_t n) { return std::span(out).first(n); };
  const auto bytes_in = [&](std::size_t n) { return std::span<const std::byte>(from).first(n); };
  const auto bytes_out = [&](std::size_t n) { return std::span(to).first(n); };

  check_operation(reduce_scatter(numbers_in(6), numbers_out(2)), 1, 3);
  expect_refused(reduce_scatter(numbers_in(4), numbers_out(1), "fc.weight"),
                 "reduce-scatter of fc.weight: 16 bytes are given; expected a multiple of 12");
  expect_refused(reduce_scatter(numbers_in(6), numbers_out(6)), "expected 8 of 3 ranks");
  check_operation(all_to_all(bytes_in(6), bytes_out(6)), 1, 3);
  expect_refused(all_to_all(bytes_in(7), bytes_out(7)), "expected a multiple of 3");
  expect_refused(all_to_all(bytes_in(6), bytes_out(5)), "there is room for 5");
  check_operation(all_gather(bytes_in(4), bytes_out(12)), 1, 3);
  expect_refused(all_gather(bytes_in(5), bytes_out(12)), "expected 15 of 3 ranks");
  expect_refused(all_reduce(numbers_in(4), numbers_out(5)), "there is room for 20");
  // Only the root takes what is gathered.
  check_operation(gather(bytes_in(5), {}, 2), 1, 3);
  expect_refused(gather(bytes_in(5), {}, 1), "there is room for 0");
}

TEST(Operation, MemoryThatOverlapsIsRefusedButForAnAllReduceInPlace) {
  std::array<float, 12> values{};
  const std::span all(values);
  check_operation(all_reduce(all, all), 1, 3);
  expect_refused(all_reduce(all.first(6), all.subspan(5, 6)), "all-reduce: what is given and");
  expect_refused(reduce_scatter(all, all.first(4)), "overlap");
  const auto bytes = std::as_writable_bytes(all);
  expect_refused(all_to_all(bytes, bytes), "overlap");
  expect_refused(all_gather(bytes.first(16), bytes), "overlap");
  check_operation(all_gather(bytes.first(8), bytes.subspan(8, 24)), 1, 3);
}

TEST(Operation, RanksThatAreNotThereAreRefused) {
  std::array<std::byte, 4> bytes{};
  expect_refused(broadcast(bytes, 3), "broadcast: rank 3 of 3; expected one from 0 on");
  expect_refused(broadcast(bytes, -1), "rank -1 of 3");
  expect_refused(send(bytes, 1), "send: rank 1 of 3; expected one from 0 on, and not this one");
  check_operation(receive(bytes, 2), 1, 3);
}

}  // namespace
}  // namespace concord::comm
