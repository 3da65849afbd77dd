#include "concord/train/generate.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "concord/base/clock.h"
#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/utf8.h"
#include "concord/train/choose_token.h"
#include "concord/train/decoder.h"
#include "concord/train/inference.h"

namespace concord::train {
namespace {

using data::TokenId;

constexpr std::uint32_t kChoiceStream = 0x7e470001;  // RandomStream::stream

void check_request(const GenerationRequest& request, const data::Task& task) {
  if (request.tokens < 1) fail("{} tokens: expected at least 1", request.tokens);
  if (!(request.temperature >= 0) || !std::isfinite(request.temperature)) {
    fail("a temperature of {}: expected 0, for always the likeliest token, or a positive number",
         request.temperature);
  }
  if (request.top_k && (*request.top_k < 1 || *request.top_k > task.outputs)) {
    fail(
        "a choice from the {} likeliest tokens: expected 1 to {}, the vocabulary; leave --top-k "
        "out to choose from all",
        *request.top_k, task.outputs);
  }
}

// Uniform in [0, 1) with 53 bits, for the token at this place of the text.
double uniform_at(std::uint64_t seed, std::size_t place) {
  const PhiloxBlock block = RandomStream{.seed = seed, .stream = kChoiceStream}.block(place);
  const std::uint64_t bits = std::uint64_t{block[0]} << 32 | block[1];
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

std::set<TokenId> special_tokens(const data::Tokenizer& tokenizer) {
  std::set<TokenId> ids;
  for (const data::TokenizerParts::AddedToken& token : tokenizer.parts().added) {
    if (token.special) ids.insert(tokenizer.find(token.content).value());
  }
  return ids;
}

// The bytes that `id` adds to a text that ends in `last`.
std::string bytes_of(const data::Tokenizer& tokenizer, TokenId last, TokenId id) {
  const TokenId both[] = {last, id};
  return tokenizer.decode(both).substr(tokenizer.decode({both, 1}).size());
}

}  // namespace

Generation generate(const Config& config, const std::filesystem::path& path,
                    const GenerationRequest& request,
                    const std::function<void(std::string_view)>& on_text) {
  const Checkpoint checkpoint = load_checkpoint(path);
  check_same_model(config_of(checkpoint), config);
  const data::Task task = task_of(checkpoint);
  if (!task.tokenizer) {
    fail("{} holds no language model, it has not learned from text: {}",
         checkpoint.directory.string(),
         task.sample_type == data::SampleType::kValues ? "give it files (--input)"
                                                       : "train one with data.kind = \"text\"");
  }
  check_request(request, task);
  data::check_utf8(request.prompt, "the prompt");
  const data::Tokenizer& tokenizer = *task.tokenizer;
  const std::set<TokenId> ends = special_tokens(tokenizer);
  std::vector<TokenId> ids = tokenizer.encode(request.prompt);
  if (request.prompt.empty() || ids.empty())
    fail("the prompt is empty: expected the beginning of a text");

  const auto decoder = make_decoder(config, task, choices_of(checkpoint));
  load_weights(decoder->states(), checkpoint.weights, checkpoint.directory.string());
  const auto room = static_cast<std::size_t>(decoder->positions());

  Generation result{.prompt_tokens = static_cast<std::int64_t>(ids.size())};
  const auto give = [&](const std::string& characters) {
    result.text += characters;
    if (on_text && !characters.empty()) on_text(characters);
  };
  data::CharacterStream characters;
  std::size_t first_seen = 0, read = 0;  // places in ids
  double start = now_seconds();
  while (result.tokens < request.tokens) {
    if (ids.size() - first_seen > room) {
      first_seen = read = ids.size() - (room + 1) / 2;
      decoder->begin_text();
    }
    const std::span<const float> logits = decoder->read(std::span(ids).subspan(read));
    read = ids.size();
    if (result.tokens == 0) {
      result.prompt_seconds = now_seconds() - start;
      start = now_seconds();
    }
    const TokenId id = choose_token(
        logits, {.temperature = request.temperature, .top_k = request.top_k.value_or(0)},
        uniform_at(request.seed, ids.size()));
    if (ends.contains(id)) break;
    give(characters.add(bytes_of(tokenizer, ids.back(), id)));
    ids.push_back(id);
    ++result.tokens;
  }
  give(characters.finish());
  result.seconds = now_seconds() - start;
  return result;
}

}  // namespace concord::train
