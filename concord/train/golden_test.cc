// Trainings by the engine and its CPU kernels against the same by PyTorch (tests/golden/golden.h),
// to single precision: the tolerances are about twenty times what rounding alone moves PyTorch's
// own losses (losses_f32 in the files).
#include "tests/golden/golden.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "concord/kernels/cpu/instruction_set.h"
#include "concord/train/engine.h"

namespace concord::train {
namespace {

void expect_losses(const golden::Golden& golden, double tolerance, DType precision, bool measure) {
  const std::int64_t batch = golden.options.microbatch;
  Engine engine(model_graphs(golden.options), {.batch = batch,
                                               .leaves = 1,
                                               .seed = golden.seed,
                                               .precision = precision,
                                               .policy = {.measure = measure}});
  const auto samples = [&](const golden::Batch& data) -> Samples {
    return {
        .count = batch, .features = data.features, .tokens = data.tokens, .labels = data.labels};
  };
  const auto steps = static_cast<std::uint32_t>(golden.losses.size());
  for (std::uint32_t step = 0; step < steps; ++step) {
    const golden::Batch data = golden::batch_of(golden, step);
    engine.begin_step({.step = step, .samples = batch, .learning_rate = golden.learning_rate});
    engine.accumulate(samples(data));
    const double expected = golden.losses[step];
    EXPECT_NEAR(engine.reduce().loss, expected, tolerance * expected) << "step " << step;
    engine.update();
  }
  const golden::Batch data = golden::batch_of(golden, steps);
  const double loss = engine.evaluate(samples(data)).loss;
  EXPECT_NEAR(loss / static_cast<double>(batch), golden.evaluation_loss,
              tolerance * golden.evaluation_loss);
}

// Direct convolutions, or with `measure` whichever algorithm is faster: Winograd's for most shapes.
void expect_losses(const std::string& name, double tolerance, bool measure = false) {
  expect_losses(golden::load(CONCORD_SOURCE_DIR, name), tolerance, DType::kF32, measure);
}

// At most twice as far from the losses in double precision as the furthest of PyTorch's own
// trainings in bf16: it is chance how the rounding errors of the first steps grow in the last.
void expect_bf16_losses(const std::string& name) {
  if (!cpu::has_bf16()) GTEST_SKIP() << "the processor has no bf16";
  const golden::Golden golden = golden::load(CONCORD_SOURCE_DIR, name);
  expect_losses(golden, 2 * std::ranges::max(golden.bf16_spread), DType::kBF16, false);
}

TEST(GoldenEngine, MlpTrainsAsInPytorch) { expect_losses("mlp", 2e-5); }
TEST(GoldenEngine, LenetTrainsAsInPytorch) { expect_losses("lenet", 5e-6); }
TEST(GoldenEngine, ResidualNetworkTrainsAsInPytorch) { expect_losses("resnet_small", 5e-6); }
TEST(GoldenEngine, GptTrainsAsInPytorch) { expect_losses("gpt", 1e-5); }
TEST(GoldenEngine, GptWithRotaryPositionsTrainsAsInPytorch) { expect_losses("gpt_rotary", 1e-5); }
TEST(GoldenEngine, VitTrainsAsInPytorch) { expect_losses("vit", 1e-5); }
TEST(GoldenEngine, BertTrainsAsInPytorch) { expect_losses("bert", 1e-5); }
TEST(GoldenEngine, Resnet18TrainsAsInPytorch) { expect_losses("resnet18", 5e-5); }
TEST(GoldenEngine, Resnet18TrainsAsInPytorchWithTheFastestKernels) {
  expect_losses("resnet18", 1e-4, /*measure=*/true);
}

TEST(GoldenEngine, MlpTrainsInBf16AsFarAsInPytorch) { expect_bf16_losses("mlp"); }
TEST(GoldenEngine, LenetTrainsInBf16AsFarAsInPytorch) { expect_bf16_losses("lenet"); }
TEST(GoldenEngine, ResidualNetworkTrainsInBf16AsFarAsInPytorch) {
  expect_bf16_losses("resnet_small");
}
TEST(GoldenEngine, Resnet18TrainsInBf16AsFarAsInPytorch) { expect_bf16_losses("resnet18"); }
TEST(GoldenEngine, VitTrainsInBf16AsFarAsInPytorch) { expect_bf16_losses("vit"); }
TEST(GoldenEngine, GptTrainsInBf16AsFarAsInPytorch) { expect_bf16_losses("gpt"); }
TEST(GoldenEngine, GptWithRotaryPositionsTrainsInBf16AsFarAsInPytorch) {
  expect_bf16_losses("gpt_rotary");
}

}  // namespace
}  // namespace concord::train
