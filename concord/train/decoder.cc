#include "concord/train/decoder.h"

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/parallel.h"

namespace concord::train {
namespace {

// Tokens read at once. One at a time, weights are read from memory for each; many at once, the
// processor is busy computing, and what a prompt leaves of the last block is computed in vain.
constexpr std::int64_t kBlock = 32;

}  // namespace

Decoder::Decoder(const nn::StepOptions& options, KernelPolicy policy) {
  policy.threads = compute_threads();
  token_ = compile_for(options, policy, 1);
  text_.resize(static_cast<std::size_t>(options.sample[0]));
  block_ = compile_for(options, policy, std::min(kBlock, positions()));
}

// The first program chooses the layouts of the states.
std::unique_ptr<Decoder::Compiled> Decoder::compile_for(const nn::StepOptions& options,
                                                        KernelPolicy& policy, std::int64_t count) {
  LayoutOptions layouts;
  if (states_ != nullptr) {
    for (const StateStore::Entry& entry : states_->entries()) {
      layouts.states[entry.name] = entry.layout;
    }
  }
  Graph lowered = lower(nn::build_continuation(options, count, /*only_read=*/states_ != nullptr),
                        policy, layouts);
  if (states_ == nullptr) {
    states_ = std::make_unique<StateStore>(lowered);
    executor_ = std::make_unique<Executor>(*states_);
  }
  auto compiled =
      std::make_unique<Compiled>(Compiled{compile(std::move(lowered), policy, *states_), count});
  executor_->prepare(compiled->program);
  return compiled;
}

void Decoder::run(Compiled& compiled, std::int64_t first) {
  const Program& program = compiled.program;
  std::copy_n(text_.begin() + first, compiled.count,
              executor_->at<std::int32_t>(program, *find_binding(program.step_inputs, "tokens")));
  *executor_->at<std::int64_t>(program, *find_binding(program.step_inputs, "first_position")) =
      first;
  executor_->update(compiled.program);
}

std::span<const float> Decoder::read(std::span<const std::int32_t> tokens) {
  const auto count = static_cast<std::int64_t>(tokens.size());
  CONCORD_CHECK(count >= 1 && count <= positions() - read_, "{} tokens after {} of {}", count,
                read_, positions());
  std::ranges::copy(tokens, text_.begin() + read_);
  const std::int64_t last = read_ + count - 1;
  // All but the last in blocks. A block may reach beyond the last token: what it computes there is
  // overwritten before it is seen. At the end of the positions a block begins among tokens read.
  for (; read_ < last; read_ += block_->count) {
    run(*block_, std::min(read_, positions() - block_->count));
  }
  run(*token_, last);
  read_ = last + 1;
  const Binding& logits = *find_binding(token_->program.outputs, "logits");
  return {executor_->at<float>(token_->program, logits),
          static_cast<std::size_t>(logits.type.shape.elements())};
}

}  // namespace concord::train
