#include "concord/runtime/collective_step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "concord/comm/test_ranks.h"
#include "concord/kernels/ref/reference.h"
#include "concord/ops/arithmetic.h"
#include "concord/ops/collective.h"
#include "concord/ops/reduction.h"
#include "concord/ops/step.h"
#include "concord/runtime/executor.h"

namespace concord {
namespace {

// Every sum of some of these is exact in f32, and in bf16 some are not.
double number(int rank, std::int64_t i) {
  return static_cast<double>((i * 37 + rank * 101) % 255 - 127) / 64;
}

ref::Array numbers(const Shape& shape, int rank, DType dtype) {
  ref::Array array(shape);
  for (std::int64_t i = 0; i < shape.elements(); ++i) {
    array[i] = is_floating(dtype) ? number(rank, i) : static_cast<double>(1000 * rank + i);
  }
  return array;
}

void write(const ref::Array& array, DType dtype, std::byte* to) {
  for (std::size_t i = 0; i < array.data.size(); ++i) {
    const double x = array.data[i];
    if (dtype == DType::kF32) reinterpret_cast<float*>(to)[i] = static_cast<float>(x);
    if (dtype == DType::kBF16) reinterpret_cast<BF16*>(to)[i] = BF16(static_cast<float>(x));
    if (dtype == DType::kF64) reinterpret_cast<double*>(to)[i] = x;
    if (dtype == DType::kI32) reinterpret_cast<std::int32_t*>(to)[i] = static_cast<int>(x);
  }
}

ref::Array read(const Shape& shape, DType dtype, const std::byte* from) {
  ref::Array array(shape);
  for (std::size_t i = 0; i < array.data.size(); ++i) {
    double& x = array.data[i];
    if (dtype == DType::kF32) x = reinterpret_cast<const float*>(from)[i];
    if (dtype == DType::kBF16) x = static_cast<float>(reinterpret_cast<const BF16*>(from)[i]);
    if (dtype == DType::kF64) x = reinterpret_cast<const double*>(from)[i];
    if (dtype == DType::kI32) x = reinterpret_cast<const std::int32_t*>(from)[i];
  }
  return array;
}

// One rank's program. `readers`: who read what it computes where it lies.
struct RankProgram {
  RankProgram(const Graph& graph, const Executor::Axes& axes, comm::Communicator* data = nullptr,
              comm::Communicator* readers = nullptr)
      : lowered(lower(graph, policy)),
        states(lowered),
        executor(states, std::make_shared<Workspace>(readers)) {
    executor.join(data == nullptr ? alone : *data, {.buffers = 4}, axes);
    program = compile(lowered, policy, states);
    executor.prepare(program);
    if (readers != nullptr) executor.share_memory();
  }
  std::byte* input(std::string_view name = "x") {
    const Binding* binding = find_binding(program.batch_inputs, name);
    if (binding == nullptr) binding = find_binding(program.step_inputs, name);
    return executor.at<std::byte>(program, *binding);
  }
  std::byte* output(std::string_view name = "y") {
    return executor.at<std::byte>(program, *find_binding(program.outputs, name));
  }
  void run() {
    executor.begin_step();
    executor.microbatch(program, {.last_of_step = true});
    executor.update(program);
  }

  KernelPolicy policy{.measure = false};
  comm::Alone alone;
  Graph lowered;
  StateStore states;
  Executor executor;
  Program program;
};

using Build = std::function<ValueId(GraphBuilder&, ValueId, const AxisPlace&)>;

// What one collective gives on this rank, in a microbatch and in an update, in memory that others
// read and in memory that they do not, is what the reference says.
void check(comm::Communicator& ranks, const TensorType& type, const Build& build,
           const std::string& what) {
  const std::pair<Input::Kind, bool> cases[] = {
      {Input::Kind::kBatch, false}, {Input::Kind::kBatch, true}, {Input::Kind::kStep, true}};
  for (const auto& [kind, shared] : cases) {
    Graph graph;
    GraphBuilder b(graph);
    const ValueId x = b.input("x", type, kind);
    b.output("y", build(b, x, {"tensor", ranks.size(), ranks.rank()}));
    const Node node = graph.nodes[0];
    const TensorType out = graph.type(node.outputs[0]);
    RankProgram program(graph, {{"tensor", &ranks}}, nullptr, shared ? &ranks : nullptr);

    std::vector<ref::Array> all;
    std::vector<const ref::Array*> inputs;
    for (int r = 0; r < ranks.size(); ++r) {
      all.push_back(ref::rounded(numbers(type.shape, r, type.dtype), type.dtype));
    }
    for (const ref::Array& array : all) inputs.push_back(&array);
    const auto rank = static_cast<std::size_t>(ranks.rank());
    write(all[rank], type.dtype, program.input());
    program.run();
    const ref::Array expected = ref::rounded(ref::run_collective(node, inputs)[rank], type.dtype);
    ASSERT_EQ(read(out.shape, type.dtype, program.output()).data, expected.data)
        << what << " of " << to_string(type) << " on rank " << rank;
  }
}

// The extent of a dim that splits in any way here, among odd ones.
Shape shape_for(std::initializer_list<int> dims) {
  Shape shape{3, 5, 7};
  for (const int dim : dims) shape = shape.with(dim, 48);
  return shape;
}

const std::vector<std::vector<std::int64_t>> kSections = {{1}, {3}, {2, 1, 1}};
constexpr DType kFloating[] = {DType::kF32, DType::kBF16};
constexpr DType kMoved[] = {DType::kF32, DType::kBF16, DType::kI32};

class CollectiveSteps : public testing::TestWithParam<std::string> {
 protected:
  // On 2 ranks and on 4.
  static void on_ranks(const std::function<void(comm::Communicator&)>& body) {
    for (const int size : {2, 4}) comm::run_ranks(GetParam(), size, body);
  }
};
INSTANTIATE_TEST_SUITE_P(, CollectiveSteps, testing::Values("shm", "gloo"),
                         [](const auto& test) { return test.param; });

TEST_P(CollectiveSteps, AllReduceAddsUpOrTakesTheLargest) {
  on_ranks([](comm::Communicator& ranks) {
    for (const DType dtype : kFloating) {
      for (const bool maximum : {false, true}) {
        for (const Shape& shape : {Shape{}, Shape{7}, Shape{3, 5, 77}}) {
          check(
              ranks, {dtype, shape},
              [=](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::all_reduce(b, x, axis, maximum);
              },
              "all_reduce");
        }
      }
    }
  });
}

TEST_P(CollectiveSteps, DoublesAreAddedUpAsDoubles) {
  on_ranks([](comm::Communicator& ranks) {
    for (const Shape& shape : {Shape{}, Shape{7}}) {
      check(
          ranks, {DType::kF64, shape},
          [](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
            return ops::all_reduce(b, x, axis);
          },
          "all_reduce");
    }
  });
}

TEST_P(CollectiveSteps, ReduceScatterAndAllGatherBySectionsOfAnyDim) {
  on_ranks([](comm::Communicator& ranks) {
    for (const int dim : {0, 1, 2}) {
      for (const auto& sections : kSections) {
        const Placement split = Placement::split(dim, sections);
        for (const DType dtype : kFloating) {
          check(
              ranks, {dtype, shape_for({dim})},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::place(b, x, axis, Placement::partial(), split);
              },
              "to " + to_string(split));
        }
        for (const DType dtype : kMoved) {
          check(
              ranks, {dtype, shard_shape(shape_for({dim}), split, ranks.size())},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::place(b, x, axis, split, Placement::replicate());
              },
              "from " + to_string(split));
        }
      }
    }
  });
}

// Far more than the stages of a meeting hold.
TEST_P(CollectiveSteps, ReduceScatterAndAllGatherOfLargeRows) {
  on_ranks([](comm::Communicator& ranks) {
    const Shape whole{3, 8, 5000};
    const Placement split = Placement::split(1);
    for (const DType dtype : kFloating) {
      check(
          ranks, {dtype, whole},
          [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
            return ops::place(b, x, axis, Placement::partial(), split);
          },
          "reduce_scatter");
      check(
          ranks, {dtype, shard_shape(whole, split, ranks.size())},
          [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
            return ops::place(b, x, axis, split, Placement::replicate());
          },
          "all_gather");
    }
  });
}

TEST_P(CollectiveSteps, AllToAllBetweenAnyTwoSplits) {
  on_ranks([](comm::Communicator& ranks) {
    for (const int dim : {0, 1, 2}) {
      for (const int to_dim : {0, 1, 2}) {
        for (std::size_t s = 0; s < kSections.size(); ++s) {
          const Placement from = Placement::split(dim, kSections[s]);
          const Placement to = Placement::split(to_dim, kSections[(s + 1) % kSections.size()]);
          const DType dtype = kMoved[s];
          check(
              ranks, {dtype, shard_shape(shape_for({dim, to_dim}), from, ranks.size())},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::place(b, x, axis, from, to);
              },
              to_string(from) + " to " + to_string(to));
          const Placement plain = Placement::split(dim), other = Placement::split(to_dim);
          if (plain == other) continue;
          check(
              ranks, {dtype, shard_shape(shape_for({dim, to_dim}), plain, ranks.size())},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::place(b, x, axis, plain, other);
              },
              to_string(plain) + " to " + to_string(other));
        }
      }
    }
  });
}

TEST_P(CollectiveSteps, NeighboursExchangeAndAddTheirHalos) {
  on_ranks([](comm::Communicator& ranks) {
    const std::pair<int, int> halos[] = {{1, 2}, {2, 0}, {0, 1}, {3, 3}};  // of parts of 3
    for (const int dim : {0, 1, 2}) {
      for (const auto& [before, after] : halos) {
        for (const DType dtype : kFloating) {
          const Shape shape = Shape{5, 7, 9}.with(dim, 3);
          check(
              ranks, {dtype, shape},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::halo_exchange(b, x, axis, dim, before, after);
              },
              "halo_exchange");
          check(
              ranks, {dtype, shape.with(dim, 3 + before + after)},
              [&](GraphBuilder& b, ValueId x, const AxisPlace& axis) {
                return ops::halo_sum(b, x, axis, dim, before, after);
              },
              "halo_sum");
        }
      }
    }
  });
}

// As in training: collectives along both axes of a mesh, between kernels, and a sum over leaves
// that goes on along data and then along tensor.
TEST_P(CollectiveSteps, StandBetweenKernelsAlongBothAxesOfAMesh) {
  comm::run_ranks(GetParam(), 4, [](comm::Communicator& ranks) {
    const Mesh mesh{{{"data", 2}, {"tensor", 2}}};
    comm::Communicator &data = ranks.split(mesh, "data"), &tensor = ranks.split(mesh, "tensor");
    const auto along = [&](const char* axis) {
      return AxisPlace{axis, 2, mesh.coordinate(ranks.rank(), axis)};
    };
    Graph graph;
    GraphBuilder b(graph);
    const ValueId x = b.input("x", {DType::kF32, {4, 6}});
    const ValueId twice = ops::add(b, x, x);
    const ValueId whole = ops::place(b, twice, along("tensor"), Placement::split(1), {});
    const ValueId of_rows = ops::reduce_sum(b, whole, {0});
    const ValueId sum = ops::all_reduce(b, ops::leaf_sum(b, of_rows), along("data"));
    b.output("sum", sum);
    b.output("y", ops::all_reduce(b, sum, along("tensor"), /*maximum=*/true));
    RankProgram program(graph, {{"tensor", &tensor}}, &data);
    EXPECT_EQ(program.program.microbatch[1].op, "all_gather (tensor)");
    EXPECT_EQ(program.program.update[0].op, "all_reduce (tensor)");
    for (int round = 0; round < 3; ++round) {
      auto* const in = reinterpret_cast<float*>(program.input());
      std::fill_n(in, 24, static_cast<float>(1 + ranks.rank()));
      program.executor.begin_step({.first_leaf = data.rank()});
      program.executor.microbatch(program.program, {.last_of_step = true});
      program.executor.reduce(program.program);
      program.executor.update(program.program);
      // Of 4 rows each 2 (1 + rank), over both rows of ranks.
      const auto* const y = reinterpret_cast<const float*>(program.output());
      for (int i = 0; i < 12; ++i) EXPECT_EQ(y[i], i < 6 ? 8 * (1 + 3) : 8 * (2 + 4));
      ranks.barrier();
    }
  });
}

TEST(CollectiveStep, AnAllReduceKeepsTheLayoutOfItsInput) {
  comm::run_ranks("shm", 2, [](comm::Communicator& ranks) {
    const Shape shape{1, 3, 2, 2};
    const Layout blocked(shape, {64, 64, 32, 16}, {1, 16, 2, 2}, {{1, 16}});
    Graph graph;
    GraphBuilder b(graph);
    ops::all_reduce(b, b.input("x", {DType::kF32, shape}), {"tensor", 2, ranks.rank()});
    for (Value& value : graph.values) value.layout = blocked;
    const CollectiveStep step = make_collective_step(graph, graph.nodes[0]);
    EXPECT_EQ(step.in_bytes(), 256);
    std::vector<float> in(64, 1.5f), out(64);
    std::byte* const operands[] = {reinterpret_cast<std::byte*>(in.data()),
                                   reinterpret_cast<std::byte*>(out.data())};
    run(step, ranks, operands);
    EXPECT_THAT(out, testing::Each(3.0f));
  });
}

// Of the second of four ranks.
TEST(CollectiveStep, OfOthersARankReachesItsShareOfASumAndItsPieceOfWhatIsMoved) {
  const AxisPlace axis{"tensor", 4, 1};
  const auto reached = [&](const TensorType& type, const Build& build) {
    Graph graph;
    GraphBuilder b(graph);
    b.output("y", build(b, b.input("x", type), axis));
    KernelPolicy policy{.measure = false};
    const Graph lowered = lower(graph, policy);
    return reached_of_others(make_collective_step(lowered, lowered.nodes[0]),
                             {axis.index, axis.ranks});
  };
  const auto sum = [](GraphBuilder& b, ValueId x, const AxisPlace& along) {
    return ops::all_reduce(b, x, along);
  };
  const auto place = [](const Placement& from, const Placement& to) {
    return [=](GraphBuilder& b, ValueId x, const AxisPlace& along) {
      return ops::place(b, x, along, from, to);
    };
  };
  using Ranges = std::vector<OperandRange>;
  const Placement partial = Placement::partial(), whole = Placement::replicate();
  const Placement rows = Placement::split(0), columns = Placement::split(1);
  const TensorType f32{DType::kF32, {64, 64}}, bf16{DType::kBF16, {64, 64}};  // 16 KiB, 8 KiB
  EXPECT_EQ(reached(f32, sum), (Ranges{{0, 4096, 4096}, {1, 4096, 4096}}));
  EXPECT_EQ(reached(bf16, sum), (Ranges{{2, 4096, 4096}}));
  EXPECT_EQ(reached({DType::kF64, {64, 64}}, sum), Ranges{});
  EXPECT_EQ(reached(f32, place(partial, rows)), (Ranges{{0, 4096, 4096}}));
  EXPECT_EQ(reached(f32, place(partial, columns)), (Ranges{{2, 4096, 4096}}));
  EXPECT_EQ(reached(bf16, place(partial, rows)), (Ranges{{2, 4096, 4096}}));
  EXPECT_EQ(reached(bf16, place(partial, columns)), (Ranges{{2, 8192 + 4096, 4096}}));
  EXPECT_EQ(reached(f32, place(rows, whole)), (Ranges{{0, 0, 16384}}));
  EXPECT_EQ(reached(bf16, place(columns, whole)), (Ranges{{0, 0, 8192}}));
  EXPECT_EQ(reached(f32, place(columns, rows)), (Ranges{{0, 4096, 4096}}));
  EXPECT_EQ(reached(bf16, place(rows, columns)), (Ranges{{2, 2048, 2048}}));
  const auto halo = [](GraphBuilder& b, ValueId x, const AxisPlace& along) {
    return ops::halo_exchange(b, x, along, 0, 1, 1);
  };
  EXPECT_EQ(reached(f32, halo), Ranges{});
}

TEST(CollectiveStep, OperandsInAWorkspaceThatRanksShareAreReadWhereTheyLie) {
  comm::run_ranks("shm", 2, [](comm::Communicator& ranks) {
    for (const bool shared : {false, true}) {
      Graph graph;
      GraphBuilder b(graph);
      const AxisPlace axis{"tensor", 2, ranks.rank()};
      ValueId x = b.input("x", {DType::kF32, {40, 60}});
      x = ops::all_reduce(b, x, axis);
      x = ops::place(b, x, axis, Placement::partial(), Placement::split(1));
      x = ops::place(b, x, axis, Placement::split(1), Placement::split(0));
      b.output("y", ops::place(b, x, axis, Placement::split(0), Placement::replicate()));
      RankProgram program(graph, {{"tensor", &ranks}}, nullptr, shared ? &ranks : nullptr);
      EXPECT_EQ(program.program.microbatch.size(), 4);
      program.run();
      const std::vector<comm::Record> records = ranks.flight_record();
      for (const comm::Record& record : std::span(records).last(4)) {
        EXPECT_EQ(record.result.in_place, shared) << name_of(record.operation.kind);
      }
    }
  });
}

TEST(Workspace, OfRanksWhoShareItIsThereOnceTheyDoAndGrowsForAll) {
  comm::run_ranks("shm", 2, [](comm::Communicator& ranks) {
    const bool first = ranks.is_first();
    const std::size_t before = ranks.bytes();
    {
      Workspace workspace(&ranks);
      if (first) workspace.reserve(1000);  // each for itself so far
      workspace.reserve(first ? 2000 : 3000);
      EXPECT_EQ(workspace.data(), nullptr);
      EXPECT_EQ(workspace.bytes(), first ? 2000 : 3000);
      workspace.allocate();
      const std::byte* const data = workspace.data();
      ASSERT_NE(data, nullptr);
      workspace.allocate();
      workspace.reserve(2000);
      EXPECT_EQ(workspace.data(), data);
      EXPECT_EQ(ranks.bytes(), before + workspace.bytes());
      workspace.reserve(2500);
      EXPECT_EQ(workspace.bytes(), first ? 2500 : 3000);
      EXPECT_EQ(ranks.bytes(), before + workspace.bytes());
      std::fill_n(workspace.data(), workspace.bytes(), std::byte{1});
      ranks.barrier();
    }
    EXPECT_EQ(ranks.bytes(), before);
  });
}

// Neither asks other ranks: one alone may call it.
TEST(CollectiveStep, LookingForNumbersThatAreNotFiniteAsksNobody) {
  comm::run_ranks("shm", 2, [](comm::Communicator& ranks) {
    Graph graph;
    GraphBuilder b(graph);
    const AxisPlace axis{"tensor", 2, ranks.rank()};
    const ValueId x = b.input("x", {DType::kF32, {4, 6}});
    const ValueId whole = ops::place(b, x, axis, Placement::split(1), {});
    const ValueId part = ops::place(b, whole, axis, Placement::partial(), Placement::split(0));
    const ValueId halo =
        ops::halo_sum(b, ops::halo_exchange(b, part, axis, 0, 1, 1), axis, 0, 1, 1);
    b.output("y", ops::mul(b, halo, halo));
    RankProgram program(graph, {{"tensor", &ranks}});
    if (ranks.rank() == 1) return;
    program.executor.begin_step();
    auto* const in = reinterpret_cast<float*>(program.input());
    std::fill_n(in, 24, 1e30f);
    EXPECT_THAT(program.executor.find_nonfinite(program.program), testing::HasSubstr("mul"));
    EXPECT_GE(program.executor.time_alone(program.program, program.program.microbatch[0], 3), 0);
  });
}

TEST(CollectiveStep, AnAxisThatIsNotJoinedOrHasOtherRanksIsRefused) {
  Graph graph;
  GraphBuilder b(graph);
  const ValueId x = b.input("x", {DType::kF32, {4, 6}});
  b.output("y", ops::place(b, x, {"tensor", 2, 0}, Placement::split(1), {}));
  EXPECT_THAT([&] { RankProgram(graph, {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("collectives along \"tensor\"")));
  comm::Alone alone;
  EXPECT_THAT(
      [&] {
        RankProgram(graph, {{"tensor", &alone}});
      },
      testing::ThrowsMessage<Error>(testing::HasSubstr("for 2 ranks, and 1 are joined")));
}

}  // namespace
}  // namespace concord
