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

Decoder::Compiled::Compiled(Program p)
    : program(std::move(p)),
      tokens(find_binding(program.step_inputs, "tokens")),
      first_position(find_binding(program.step_inputs, "first_position")),
      logits(find_binding(program.outputs, "logits")) {}

// The program of a token, which runs most, chooses the layouts of the states.
Decoder::Decoder(const nn::StepOptions& options, KernelPolicy policy) {
  policy.threads = compute_threads();
  Graph token = lower(nn::build_continuation(options, 1), policy);
  states_ = std::make_unique<StateStore>(token);
  executor_ = std::make_unique<Executor>(*states_);
  token_ = compiled(std::move(token), policy);
  text_.resize(static_cast<std::size_t>(options.sample[0]));
  block_ = compiled(lower(nn::build_continuation(options, std::min(kBlock, positions()),
                                                 /*only_read=*/true),
                          policy, {.layouts = {.states = states_->layouts()}}),
                    policy);
}

std::unique_ptr<Decoder::Compiled> Decoder::compiled(Graph lowered, KernelPolicy& policy) {
  auto result = std::make_unique<Compiled>(compile(std::move(lowered), policy, *states_));
  executor_->prepare(result->program);
  return result;
}

void Decoder::run(Compiled& compiled, std::int64_t first) {
  const Program& program = compiled.program;
  std::copy_n(text_.begin() + first, compiled.count(),
              executor_->at<std::int32_t>(program, *compiled.tokens));
  *executor_->at<std::int64_t>(program, *compiled.first_position) = first;
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
  for (; read_ < last; read_ += block_->count()) {
    run(*block_, std::min(read_, positions() - block_->count()));
  }
  run(*token_, last);
  read_ = last + 1;
  return {executor_->at<float>(token_->program, *token_->logits),
          static_cast<std::size_t>(token_->logits->type.shape.elements())};
}

}  // namespace concord::train
