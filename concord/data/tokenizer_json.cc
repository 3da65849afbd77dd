// Tokenizers as Hugging Face's tokenizer.json.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/data/split_pattern.h"
#include "concord/data/tokenizer.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

using nlohmann::json;
using Prefix = TokenizerParts::Prefix;

std::string excerpt(const json& value) {
  return shortened(value.dump(-1, ' ', false, json::error_handler_t::replace), 200);
}

// Whether a field that may be absent or null is there.
bool present(const json& object, const char* key) {
  return object.contains(key) && !object.at(key).is_null();
}

class Reader {
 public:
  Reader(const json& from, std::string_view source) : from_(from), source_(source) {}

  TokenizerParts read() {
    read_tokens();
    read_model();
    if (present(from_, "normalizer")) read_normalizer(from_.at("normalizer"));
    if (present(from_, "pre_tokenizer")) read_pre_tokenizer(from_.at("pre_tokenizer"));
    return std::move(parts_);
  }

 private:
  const json& model() const { return member(from_, "model"); }

  const json& member(const json& object, const char* key) const {
    if (!object.is_object() || !object.contains(key)) {
      fail("{}: not a tokenizer.json: expected an object with \"{}\", found {}", source_, key,
           excerpt(object));
    }
    return object.at(key);
  }
  std::string text_of(const json& value, const char* what) const {
    if (!value.is_string()) fail("{}: {} is {}: expected a text", source_, what, excerpt(value));
    return value.get<std::string>();
  }
  std::string text_member(const json& object, const char* key) const {
    return text_of(member(object, key), key);
  }
  const json& list_member(const json& object, const char* key) const {
    const json& list = member(object, key);
    if (!list.is_array()) fail("{}: {} is {}: expected a list", source_, key, excerpt(list));
    return list;
  }
  // These may be absent.
  std::string text(const json& object, const char* key) const {
    return present(object, key) ? text_member(object, key) : std::string();
  }
  bool flag(const json& object, const char* key, bool otherwise = false) const {
    if (!present(object, key)) return otherwise;
    const json& value = object.at(key);
    if (!value.is_boolean()) {
      fail("{}: {} is {}: expected true or false", source_, key, excerpt(value));
    }
    return value.get<bool>();
  }

  void read_tokens() {
    const json& vocabulary = member(model(), "vocab");
    if (!vocabulary.is_object()) {
      fail("{}: model.vocab is {}: expected an object from tokens to ids", source_,
           excerpt(vocabulary));
    }
    const json none = json::array();
    const json& added = present(from_, "added_tokens") ? list_member(from_, "added_tokens") : none;
    std::size_t count = vocabulary.size();
    for (const json& token : added) {
      count += vocabulary.contains(text_member(token, "content")) ? 0 : 1;
    }
    parts_.tokens.resize(count);
    taken_.resize(count);
    for (const auto& [token, id] : vocabulary.items()) place(token, id);
    for (const json& token : added) read_added(token, vocabulary);
  }

  // Ids must be 0, 1, 2, ...: there are as many places as tokens.
  void place(const std::string& token, const json& id) {
    const std::size_t count = parts_.tokens.size();
    if (!id.is_number_integer() || id < 0 || id.get<std::size_t>() >= count) {
      fail("{}: the id of the token {} is {}: expected 0 to {}, there being {} tokens", source_,
           quote(shortened(token)), excerpt(id), count - 1, count);
    }
    const auto index = id.get<std::size_t>();
    if (taken_[index]) {
      fail("{}: the tokens {} and {} have the id {}: expected an id for each", source_,
           quote(shortened(parts_.tokens[index])), quote(shortened(token)), index);
    }
    taken_[index] = true;
    parts_.tokens[index] = token;
  }

  void read_added(const json& token, const json& vocabulary) {
    const std::string content = text_member(token, "content");
    for (const char* unsupported : {"single_word", "lstrip", "rstrip"}) {
      if (flag(token, unsupported)) {
        fail("{}: the added token {} has {}: expected false, the others are not supported", source_,
             quote(shortened(content)), unsupported);
      }
    }
    const json& id = member(token, "id");
    if (!vocabulary.contains(content)) {
      place(content, id);
    } else if (vocabulary.at(content) != id) {
      fail("{}: the added token {} has the id {}, but {} in the vocabulary", source_,
           quote(shortened(content)), excerpt(id), excerpt(vocabulary.at(content)));
    }
    parts_.added.push_back({content, flag(token, "special"), flag(token, "normalized")});
  }

  void read_model() {
    const std::string type = text(model(), "type");
    if (type != "BPE" && !type.empty()) {
      fail("{}: a model of type {}: expected BPE", source_, quote(shortened(type)));
    }
    if (present(model(), "dropout") && model().at("dropout") != 0) {
      fail("{}: model.dropout is {}: expected null, encoding is not random", source_,
           excerpt(model().at("dropout")));
    }
    for (const char* unsupported : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!text(model(), unsupported).empty()) {
        fail("{}: model.{} is {}: expected none, it is not supported", source_, unsupported,
             excerpt(model().at(unsupported)));
      }
    }
    parts_.unknown = text(model(), "unk_token");
    parts_.fuse_unknown = flag(model(), "fuse_unk");
    parts_.byte_fallback = flag(model(), "byte_fallback");
    parts_.ignore_merges = flag(model(), "ignore_merges");
    read_merges();
  }

  // ["left", "right"], or "left right".
  void read_merges() {
    const json& merges = list_member(model(), "merges");
    std::unordered_map<std::string_view, TokenId> ids;
    for (const std::string& token : parts_.tokens) {
      ids.emplace(token, static_cast<TokenId>(ids.size()));
    }
    const auto id_of = [&](std::string_view token) {
      const auto found = ids.find(token);
      if (found == ids.end()) {
        fail("{}: merge {} is of {}: expected tokens of the vocabulary", source_,
             parts_.merges.size(), quote(shortened(token)));
      }
      return found->second;
    };
    for (const json& merge : merges) {
      if (merge.is_array() && merge.size() == 2) {
        parts_.merges.emplace_back(id_of(text_of(merge[0], "a token of a merge")),
                                   id_of(text_of(merge[1], "a token of a merge")));
        continue;
      }
      std::string_view pair;
      if (merge.is_string()) pair = merge.get_ref<const std::string&>();
      const std::size_t space = pair.find(' ');
      if (space == pair.npos) {
        fail("{}: merge {} is {}: expected two tokens", source_, parts_.merges.size(),
             excerpt(merge));
      }
      parts_.merges.emplace_back(id_of(pair.substr(0, space)), id_of(pair.substr(space + 1)));
    }
  }

  [[noreturn]] void refuse(const char* what, const json& value, const char* expected) const {
    fail("{}: the {} {} is not supported: expected {}", source_, what, excerpt(value), expected);
  }

  void read_normalizer(const json& normalizer) {
    constexpr const char* kExpected = "Prepend, then Replace of a space (as Llama 2 has), or none";
    const std::string type = text(normalizer, "type");
    if (type == "Sequence") {
      for (const json& step : list_member(normalizer, "normalizers")) {
        if (text(step, "type") == "Sequence") refuse("normalizer", step, kExpected);
        read_normalizer(step);
      }
      return;
    }
    const bool fresh = parts_.normalized_space.empty();
    if (type == "Prepend" && fresh && parts_.normalized_prefix.empty()) {
      parts_.normalized_prefix = text_member(normalizer, "prepend");
    } else if (type == "Replace" && fresh &&
               member(normalizer, "pattern") == json({{"String", " "}})) {
      parts_.normalized_space = text_member(normalizer, "content");
    } else {
      refuse("normalizer", normalizer, kExpected);
    }
  }

  void read_pre_tokenizer(const json& step) {
    const std::string type = text(step, "type");
    // ByteLevel and Metaspace change the text, so that no other step may follow.
    const bool ended = parts_.byte_level || !parts_.metaspace.empty();
    if (type == "Sequence") {
      for (const json& inner : list_member(step, "pretokenizers")) {
        if (text(inner, "type") == "Sequence") refuse_pre_tokenizer(inner);
        read_pre_tokenizer(inner);
      }
    } else if (type == "Split" && !ended) {
      read_split(step);
    } else if (type == "ByteLevel" && !ended) {
      read_byte_level(step);
    } else if (type == "Metaspace" && !ended) {
      read_metaspace(step);
    } else {
      refuse_pre_tokenizer(step);
    }
  }

  [[noreturn]] void refuse_pre_tokenizer(const json& step) const {
    refuse("pre-tokenizer", step,
           "Split by regular expressions into isolated pieces and then ByteLevel, or Metaspace");
  }

  void read_split(const json& step) {
    constexpr std::size_t kMostPatterns = 16;
    const json& pattern = member(step, "pattern");
    if (!pattern.contains("Regex") || text(step, "behavior") != "Isolated" ||
        flag(step, "invert") || parts_.patterns.size() >= kMostPatterns) {
      refuse_pre_tokenizer(step);
    }
    parts_.patterns.push_back(text_member(pattern, "Regex"));
  }

  void read_byte_level(const json& step) {
    if (flag(step, "add_prefix_space")) {
      if (!parts_.patterns.empty()) refuse_pre_tokenizer(step);
      parts_.prefix = Prefix::kAlways;
    }
    if (flag(step, "use_regex", true)) parts_.patterns.emplace_back(kGpt2Pattern);
    parts_.byte_level = true;
  }

  void read_metaspace(const json& step) {
    if (!parts_.patterns.empty()) refuse_pre_tokenizer(step);
    parts_.metaspace = text_member(step, "replacement");
    if (parts_.metaspace.empty() ||
        first_character_size(parts_.metaspace) != parts_.metaspace.size()) {
      refuse_pre_tokenizer(step);
    }
    parts_.metaspace_split = flag(step, "split", true);
    const std::string scheme = present(step, "prepend_scheme")        ? text(step, "prepend_scheme")
                               : flag(step, "add_prefix_space", true) ? "always"
                                                                      : "never";
    if (scheme == "always") {
      parts_.prefix = Prefix::kAlways;
    } else if (scheme == "first") {
      parts_.prefix = Prefix::kFirst;
    } else if (scheme != "never") {
      refuse_pre_tokenizer(step);
    }
  }

  const json& from_;
  std::string_view source_;
  TokenizerParts parts_;
  std::vector<bool> taken_;  // by id
};

json added_tokens(const Tokenizer& tokenizer) {
  std::vector<json> list;
  for (const TokenizerParts::AddedToken& token : tokenizer.parts().added) {
    list.push_back({{"id", *tokenizer.find(token.content)},
                    {"content", token.content},
                    {"single_word", false},
                    {"lstrip", false},
                    {"rstrip", false},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  std::ranges::sort(list, {}, [](const json& token) { return token.at("id").get<TokenId>(); });
  return list;
}

json replacement(const std::string& what, const std::string& by) {
  return {{"type", "Replace"}, {"pattern", {{"String", what}}}, {"content", by}};
}

// `steps` under the key `name`, null where there are none.
json sequence(const char* name, json steps) {
  if (steps.empty()) return nullptr;
  return {{"type", "Sequence"}, {name, std::move(steps)}};
}

json normalizer(const TokenizerParts& parts) {
  json steps = json::array();
  if (!parts.normalized_prefix.empty()) {
    steps.push_back({{"type", "Prepend"}, {"prepend", parts.normalized_prefix}});
  }
  if (!parts.normalized_space.empty()) {
    steps.push_back(replacement(" ", parts.normalized_space));
  }
  return sequence("normalizers", std::move(steps));
}

json pre_tokenizer(const TokenizerParts& parts) {
  if (!parts.metaspace.empty()) {
    return {{"type", "Metaspace"},
            {"replacement", parts.metaspace},
            {"prepend_scheme", parts.prefix == Prefix::kAlways  ? "always"
                               : parts.prefix == Prefix::kFirst ? "first"
                                                                : "never"},
            {"split", parts.metaspace_split}};
  }
  const bool gpt2 =
      parts.byte_level && !parts.patterns.empty() && parts.patterns.back() == kGpt2Pattern;
  json steps = json::array();
  for (std::size_t i = 0; i + (gpt2 ? 1 : 0) < parts.patterns.size(); ++i) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", parts.patterns[i]}}},
                     {"behavior", "Isolated"},
                     {"invert", false}});
  }
  if (parts.byte_level) {
    steps.push_back({{"type", "ByteLevel"},
                     {"add_prefix_space", parts.prefix == Prefix::kAlways},
                     {"trim_offsets", true},
                     {"use_regex", gpt2}});
  }
  return steps.size() == 1 ? steps[0] : sequence("pretokenizers", std::move(steps));
}

json decoder(const TokenizerParts& parts) {
  if (parts.byte_level) {
    return {{"type", "ByteLevel"},
            {"add_prefix_space", true},
            {"trim_offsets", true},
            {"use_regex", true}};
  }
  const std::string& mark = parts.metaspace.empty() ? parts.normalized_space : parts.metaspace;
  json steps = json::array();
  if (!mark.empty()) steps.push_back(replacement(mark, " "));
  steps.push_back({{"type", "ByteFallback"}});
  steps.push_back({{"type", "Fuse"}});
  if (!parts.normalized_prefix.empty() || parts.prefix != Prefix::kNever) {
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  return sequence("decoders", std::move(steps));
}

// As text where no token holds a space: every version of the package reads that.
json merges(const TokenizerParts& parts) {
  const auto spelling = [&](TokenId id) { return parts.tokens[static_cast<std::size_t>(id)]; };
  json list = json::array();
  for (const auto& [left, right] : parts.merges) {
    const std::string pair = spelling(left) + " " + spelling(right);
    if (std::ranges::count(pair, ' ') == 1) {
      list.push_back(pair);
    } else {
      list.push_back({spelling(left), spelling(right)});
    }
  }
  return list;
}

json model(const TokenizerParts& parts) {
  json vocabulary = json::object();
  TokenId id = 0;
  for (const std::string& token : parts.tokens) vocabulary[token] = id++;
  return {{"type", "BPE"},
          {"dropout", nullptr},
          {"unk_token", parts.unknown.empty() ? json() : json(parts.unknown)},
          {"continuing_subword_prefix", nullptr},
          {"end_of_word_suffix", nullptr},
          {"fuse_unk", parts.fuse_unknown},
          {"byte_fallback", parts.byte_fallback},
          {"ignore_merges", parts.ignore_merges},
          {"vocab", std::move(vocabulary)},
          {"merges", merges(parts)}};
}

}  // namespace

Tokenizer Tokenizer::from_json(const json& from, std::string_view source) {
  return Tokenizer(Reader(from, source).read(), source);
}

Tokenizer Tokenizer::parse(std::string_view text, std::string_view source) {
  constexpr int kMaxDepth = 16;
  const auto watch = [&](int depth, json::parse_event_t, const json&) {
    if (depth > kMaxDepth) fail("{}: JSON nested more than {} deep", source, kMaxDepth);
    return true;
  };
  json parsed;
  try {
    parsed = json::parse(text, watch);
  } catch (const json::parse_error& error) {
    fail("{}: not valid JSON from byte {} of {} on", source, error.byte, text.size());
  } catch (const json::out_of_range&) {
    fail("{}: not valid JSON: it holds a number that is too large", source);
  }
  return from_json(parsed, source);
}

json Tokenizer::to_json() const {
  const TokenizerParts& own = parts();
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added_tokens(*this)},
          {"normalizer", normalizer(own)},
          {"pre_tokenizer", pre_tokenizer(own)},
          {"post_processor", nullptr},
          {"decoder", decoder(own)},
          {"model", model(own)}};
}

}  // namespace concord::data
