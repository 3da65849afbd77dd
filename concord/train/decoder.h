// Decoder: reads a text token by token with a language model, and says what the model expects next.
//
// Keys and values of the tokens read are kept, so that each token is computed once. A step of the
// model is one program, run for every token; a second program reads a block of tokens at once, for
// prompts. Used by one thread; kernels run on base/parallel.h's threads.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "concord/nn/step.h"
#include "concord/runtime/executor.h"

namespace concord::train {

class Decoder {
 public:
  // Compiles the programs; every state is zero until it is written. Throws Error where the model
  // cannot continue a text.
  Decoder(const nn::StepOptions& options, KernelPolicy policy);

  StateStore& states() { return *states_; }
  // Tokens that a text may have.
  std::int64_t positions() const { return static_cast<std::int64_t>(text_.size()); }

  // Reads the text's next tokens, at least one, for which there must be room. Returns the logits of
  // the token that follows, one for each of the vocabulary; they are valid until the next call.
  std::span<const float> read(std::span<const std::int32_t> tokens);

  // The next token that is read begins another text.
  void begin_text() { read_ = 0; }

 private:
  // A program, with its inputs and output looked up once.
  struct Compiled {
    explicit Compiled(Program p);
    Compiled(const Compiled&) = delete;  // the pointers are into `program`
    Compiled& operator=(const Compiled&) = delete;
    std::int64_t count() const { return tokens->type.shape[1]; }
    Program program;
    const Binding *tokens, *first_position;
    const Binding* logits;  // null where tokens are only read
  };

  std::unique_ptr<Compiled> compiled(Graph lowered, KernelPolicy& policy);
  // Computes the tokens of the text from position `first` on, as many as the program takes.
  void run(Compiled& compiled, std::int64_t first);

  std::unique_ptr<StateStore> states_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<Compiled> token_, block_;
  std::vector<std::int32_t> text_;  // by position; what is not read yet is any tokens
  std::int64_t read_ = 0;           // positions
};

}  // namespace concord::train
