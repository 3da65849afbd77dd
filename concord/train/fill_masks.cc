#include "concord/train/fill_masks.h"

#include <algorithm>
#include <numeric>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/data/utf8.h"
#include "concord/train/inference.h"

namespace concord::train {
namespace {

using data::TokenId;

std::string as_utf8(std::string_view bytes) {
  std::string text;
  while (!bytes.empty()) {
    const std::size_t valid = data::valid_utf8_prefix(bytes);
    text += bytes.substr(0, valid);
    bytes.remove_prefix(valid);
    if (bytes.empty()) break;
    data::append_utf8(text, 0xfffd);
    bytes.remove_prefix(1);
  }
  return text;
}

// The tokens of a text in which `spelling` stands for `mask`.
std::vector<TokenId> encode(const data::Tokenizer& tokenizer, std::string_view text,
                            std::string_view spelling, TokenId mask) {
  std::vector<TokenId> ids;
  while (true) {
    const std::size_t end = text.find(spelling);
    const std::vector<TokenId> part = tokenizer.encode(text.substr(0, end), ids.empty());
    ids.insert(ids.end(), part.begin(), part.end());
    if (end == std::string_view::npos) return ids;
    ids.push_back(mask);
    text.remove_prefix(end + spelling.size());
  }
}

// The likeliest tokens that are text; what hides others is none.
std::vector<FilledText::Candidate> likeliest(const data::Task& task, std::span<const float> logits,
                                             int count) {
  const std::vector<double> probabilities = softmax(logits);
  std::vector<TokenId> ids(static_cast<std::size_t>(task.tokenizer->vocabulary_size()));
  std::iota(ids.begin(), ids.end(), 0);
  std::erase(ids, *task.mask);
  const auto probability = [&](TokenId id) { return probabilities[static_cast<std::size_t>(id)]; };
  const auto end = ids.begin() + std::min<std::ptrdiff_t>(count, std::ssize(ids));
  std::ranges::partial_sort(ids, end, std::ranges::greater(), probability);
  std::vector<FilledText::Candidate> candidates;
  for (auto id = ids.begin(); id != end; ++id) {
    candidates.push_back({*id, as_utf8(task.tokenizer->decode({&*id, 1})), probability(*id)});
  }
  return candidates;
}

}  // namespace

FilledText fill_masks(const Config& config, const std::filesystem::path& path,
                      std::string_view text, int candidates) {
  const Checkpoint checkpoint = load_checkpoint(path);
  check_same_model(config_of(checkpoint), config);
  const data::Task task = task_of(checkpoint);
  if (!task.tokenizer || !task.mask) {
    fail("{} holds no model that fills masks: expected bert, trained on text",
         checkpoint.directory.string());
  }
  data::check_utf8(text, "the text");
  const std::string spelling = config.data.mask_token.empty() ? "[MASK]" : config.data.mask_token;
  std::vector<TokenId> ids = encode(*task.tokenizer, text, spelling, *task.mask);
  const std::int64_t length = std::ssize(ids), longest = task.sample[0];
  if (std::ranges::count(ids, *task.mask) == 0) {
    fail("the text hides no token: expected {} in place of each that is to be filled in",
         quote(spelling));
  }
  if (length > longest) {
    fail("a text of {} tokens: the model takes at most {} (data.length)", length, longest);
  }

  data::Task shorter = task;
  shorter.sample = {length};
  Config sized = config;
  if (sized.model.max_length == 0) sized.model.max_length = longest;
  const auto engine = make_predictor(sized, shorter, 1, choices_of(checkpoint));
  load_weights(engine->states(), checkpoint.weights, checkpoint.directory.string());
  const auto outputs = static_cast<std::size_t>(task.outputs);
  std::vector<float> logits(ids.size() * outputs);
  engine->predict({.count = 1, .tokens = ids}, logits);

  FilledText filled;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] != *task.mask) continue;
    filled.places.push_back(
        likeliest(task, std::span(logits).subspan(i * outputs, outputs), candidates));
    ids[i] = filled.places.back().front().id;
  }
  filled.text = as_utf8(task.tokenizer->decode(ids));
  return filled;
}

}  // namespace concord::train
