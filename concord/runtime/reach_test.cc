#include "concord/runtime/reach.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "concord/ops/collective.h"

namespace concord {
namespace {

constexpr std::size_t kKiB = 1024;

// Of f32 numbers, as many KiB of them, along "tensor".
ProgramStep step(std::string_view op, std::size_t kibibytes, std::vector<Address> operands) {
  ProgramStep result;
  result.collective = CollectiveStep{.op = std::string(op), .axis = "tensor"};
  result.collective->in_elements = static_cast<std::int64_t>(kibibytes * kKiB / sizeof(float));
  result.operands = std::move(operands);
  return result;
}

Address arena(std::size_t kibibytes) { return {Region::kArena, kibibytes * kKiB}; }

std::size_t reached(const Program& program, Share own = {0, 2}) {
  const Program* const programs[] = {&program};
  return reached_bytes(programs, "tensor", own);
}

TEST(ReachedBytes, OfAnAllReduceAreAShareOfTheInputAndOfTheOutputOfEachOtherRank) {
  Program program;
  program.microbatch.push_back(step(ops::kAllReduce, 1024, {arena(0), arena(4096)}));
  EXPECT_EQ(reached(program, {0, 2}), (512 + 512) * kKiB);
  EXPECT_EQ(reached(program, {1, 2}), (512 + 512) * kKiB);
  EXPECT_EQ(reached(program, {2, 4}), 3 * (256 + 256) * kKiB);
  EXPECT_EQ(reached(program, {0, 1}), 0);
}

TEST(ReachedBytes, OfAnAllReduceInPlaceAreAShareOnce) {
  Program program;
  program.microbatch.push_back(step(ops::kAllReduce, 1024, {arena(0), arena(0)}));
  EXPECT_EQ(reached(program), 512 * kKiB);
}

TEST(ReachedBytes, OfAnAllReduceInBf16LieInScratchMemoryAsF32) {
  Program program;
  program.microbatch.push_back(step(ops::kAllReduce, 1024, {arena(0), arena(4096), arena(8192)}));
  program.microbatch[0].collective->dtype = DType::kBF16;
  EXPECT_EQ(reached(program), 512 * kKiB);
  program.microbatch[0].operands[2].region = Region::kPrologue;
  EXPECT_EQ(reached(program), 0);
}

TEST(ReachedBytes, OfWhatIsGatheredAreAllAndOfWhatIsScatteredAPiece) {
  for (const auto& [op, expected] : {std::pair{ops::kAllGather, 3 * 1024 * kKiB},
                                     {ops::kReduceScatter, 3 * 256 * kKiB},
                                     {ops::kAllToAll, 3 * 256 * kKiB}}) {
    Program program;
    program.microbatch.push_back(step(op, 1024, {arena(0), arena(4096)}));
    EXPECT_EQ(reached(program, {1, 4}), expected) << op;
  }
}

TEST(ReachedBytes, AreThoseOfAllProgramsAndPhasesAndNoneTwice) {
  Program training, evaluation;
  training.microbatch.push_back(step(ops::kAllGather, 1024, {arena(0), arena(8192)}));
  training.update.push_back(step(ops::kAllGather, 512, {arena(2048), arena(8192)}));
  // 512 KiB of them are those of the first.
  evaluation.microbatch.push_back(step(ops::kAllGather, 1024, {arena(512), arena(8192)}));
  EXPECT_EQ(reached(training), (1024 + 512) * kKiB);
  EXPECT_EQ(reached(evaluation), 1024 * kKiB);
  const Program* const programs[] = {&training, &evaluation};
  EXPECT_EQ(reached_bytes(programs, "tensor", {0, 2}), (1024 + 512 + 512) * kKiB);
}

TEST(ReachedBytes, AreWholeBlocksOf64KiB) {
  Program program;
  program.microbatch.push_back(step(ops::kAllGather, 4, {arena(62), arena(4096)}));
  EXPECT_EQ(reached(program), 128 * kKiB);
  program.microbatch.push_back(step(ops::kAllGather, 1, {arena(100), arena(4096)}));
  EXPECT_EQ(reached(program), 128 * kKiB);
}

TEST(ReachedBytes, AreNoneOutsideTheArenaAlongAnotherAxisOrInAPrologue) {
  Program program;
  program.microbatch.push_back(step(ops::kAllReduce, 1024, {{Region::kPrologue, 0}, arena(4096)}));
  EXPECT_EQ(reached(program), 512 * kKiB);
  program.microbatch.push_back(step(ops::kAllGather, 1024, {{Region::kStates, 0}, arena(8192)}));
  program.microbatch.push_back(step(ops::kAllGather, 1024, {arena(16384), arena(8192)}));
  program.microbatch.back().collective->axis = "data";
  program.prologue.push_back(step(ops::kAllGather, 1024, {arena(32768), arena(8192)}));
  program.microbatch.push_back(ProgramStep());
  EXPECT_EQ(reached(program), 512 * kKiB);
}

}  // namespace
}  // namespace concord
