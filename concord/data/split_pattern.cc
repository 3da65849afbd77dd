#include "concord/data/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "concord/base/error.h"
#include "concord/base/text.h"
#include "concord/data/utf8.h"

namespace concord::data {
namespace {

constexpr std::size_t kMaxPattern = 4096;         // bytes
constexpr std::uint32_t kMatchLimit = 1'000'000;  // steps of one match
constexpr std::uint32_t kHeapLimit = 1 << 16;     // KiB

template <auto release>
struct Release {
  template <typename T>
  void operator()(T* object) const {
    release(object);
  }
};
using MatchData = std::unique_ptr<pcre2_match_data, Release<pcre2_match_data_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, Release<pcre2_match_context_free>>;

PCRE2_SPTR units(std::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

std::string message_of(int error) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(error, text, sizeof(text));
  return reinterpret_cast<const char*>(text);
}

// One text and its matches in turn.
class Matcher {
 public:
  Matcher(const pcre2_code* code, std::string_view text)
      : code_(code),
        text_(text),
        data_(pcre2_match_data_create_from_pattern(code, nullptr)),
        context_(pcre2_match_context_create(nullptr)) {
    if (!data_ || !context_) throw std::bad_alloc();
    pcre2_set_match_limit(context_.get(), kMatchLimit);
    pcre2_set_heap_limit(context_.get(), kHeapLimit);
  }

  // Finds the first match at or after `from`; negative: PCRE2's error, PCRE2_ERROR_NOMATCH for
  // none.
  int find(std::size_t from) {
    constexpr std::uint32_t kOptions = PCRE2_NO_UTF_CHECK;
    const int result = match(from, kOptions);
    // Generated code has a small stack; the interpreter's is the heap.
    return result == PCRE2_ERROR_JIT_STACKLIMIT ? match(from, kOptions | PCRE2_NO_JIT) : result;
  }
  std::size_t begin() const { return pcre2_get_ovector_pointer(data_.get())[0]; }
  std::size_t end() const { return pcre2_get_ovector_pointer(data_.get())[1]; }

 private:
  int match(std::size_t from, std::uint32_t options) {
    return pcre2_match(code_, units(text_), text_.size(), from, options, data_.get(),
                       context_.get());
  }

  const pcre2_code* code_;
  std::string_view text_;
  MatchData data_;
  MatchContext context_;
};

}  // namespace

SplitPattern::SplitPattern(std::string pattern, std::string source)
    : pattern_(std::move(pattern)), source_(std::move(source)) {
  if (pattern_.size() > kMaxPattern) {
    fail("{}: a splitting pattern of {} bytes: expected at most {}", source_, pattern_.size(),
         kMaxPattern);
  }
  int error = 0;
  PCRE2_SIZE place = 0;
  // As in Oniguruma's Ruby syntax, ^ and $ match at every line.
  pcre2_code* code = pcre2_compile(
      units(pattern_), pattern_.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &place, nullptr);
  if (code == nullptr) {
    fail("{}: the splitting pattern {} is not understood at byte {}: {}", source_,
         quote(shortened(pattern_)), place, message_of(error));
  }
  code_ = std::shared_ptr<const void>(code, [code](const void*) { pcre2_code_free(code); });
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where it cannot, the pattern is interpreted
}

void SplitPattern::split(std::string_view text,
                         const std::function<void(std::string_view)>& word) const {
  Matcher matcher(static_cast<const pcre2_code*>(code_.get()), text);
  std::size_t done = 0;  // what has been handed over
  std::size_t from = 0;
  while (from < text.size()) {
    const int result = matcher.find(from);
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      fail(
          "{}: the splitting pattern {} fails on the text from byte {} on, {}: {}; shorten that "
          "run",
          source_, quote(shortened(pattern_)), from, quote(shortened(text.substr(from), 40)),
          message_of(result));
    }
    // \K can set the begin of a match anywhere.
    const std::size_t begin = std::max(matcher.begin(), done);
    const std::size_t end = std::max(matcher.end(), begin);
    if (begin > done) word(text.substr(done, begin - done));
    if (end > begin) word(text.substr(begin, end - begin));
    done = end;
    // An empty match cuts the text there; the next one is sought a character further.
    from = end;
    if (end == begin && from < text.size()) from += first_character_size(text.substr(from));
  }
  if (done < text.size()) word(text.substr(done));
}

}  // namespace concord::data
