// concord tokenize: learns a tokenizer from text, or shows what one makes of text.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>

#include "concord/base/clock.h"
#include "concord/base/file.h"
#include "concord/cli/command.h"
#include "concord/cli/units.h"
#include "concord/data/text.h"
#include "concord/data/train_bpe.h"

namespace concord::cli {
namespace {

struct TokenizeArguments {
  std::vector<std::string> train;
  int vocabulary = 8192;
  std::vector<std::string> special = {"<|endoftext|>"};
  std::string out;
  std::string tokenizer;
  std::vector<std::string> inputs;
  bool ids = false;
  bool json = false;
};

// One live line where standard error is a terminal, nothing elsewhere.
class LiveLine {
 public:
  LiveLine() = default;
  ~LiveLine() {
    if (drawn_) fmt::print(stderr, "\r\x1b[K");
  }
  LiveLine(const LiveLine&) = delete;
  LiveLine& operator=(const LiveLine&) = delete;

  void show(int learned, int wanted) {
    if (!terminal_) return;
    drawn_ = true;
    fmt::print(stderr, "\r\x1b[K{} of {} merges", learned, wanted);
    std::fflush(stderr);
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  bool drawn_ = false;
};

void train_tokenizer(const TokenizeArguments& arguments) {
  const double start = now_seconds();
  std::vector<std::string> texts;
  std::size_t bytes = 0;
  for (const std::string& file : arguments.train) {
    bytes += texts.emplace_back(data::read_text(file)).size();
  }
  data::BpeOptions options{.vocabulary_size = arguments.vocabulary,
                           .special_tokens = arguments.special};
  const data::Tokenizer tokenizer = [&] {
    LiveLine line;
    options.progress = [&](int learned, int wanted) { line.show(learned, wanted); };
    return data::train_bpe(texts, options);
  }();
  write_file_atomically(arguments.out, tokenizer.to_json().dump(1) + "\n");
  const double taken = now_seconds() - start;
  if (arguments.json) {
    print_json({{"tokenizer", arguments.out},
                {"vocabulary", tokenizer.vocabulary_size()},
                {"bytes", bytes},
                {"seconds", taken}});
  } else {
    fmt::print("{}: {} tokens, learned from {} of text in {}\n", arguments.out,
               tokenizer.vocabulary_size(), format_bytes(static_cast<double>(bytes)),
               format_duration(taken));
  }
}

struct Encoded {
  std::string file;
  std::size_t bytes = 0;
  std::vector<data::TokenId> ids;

  double bytes_per_token() const {
    return static_cast<double>(bytes) / static_cast<double>(ids.size());
  }
};

void print_text(const TokenizeArguments& arguments, const Encoded& encoded) {
  if (!arguments.ids) {
    fmt::print("{}: {} bytes, {} tokens, {:.3f} bytes per token\n", encoded.file, encoded.bytes,
               encoded.ids.size(), encoded.bytes_per_token());
    return;
  }
  std::string line;
  for (const data::TokenId id : encoded.ids) line += fmt::format("{} ", id);
  line.back() = '\n';
  std::fwrite(line.data(), 1, line.size(), stdout);
}

void encode_files(const TokenizeArguments& arguments) {
  const data::Tokenizer tokenizer = data::open_tokenizer(arguments.tokenizer);
  nlohmann::json files = nlohmann::json::array();
  for (const std::string& file : arguments.inputs) {
    const std::string text = data::read_text(file);
    const Encoded encoded{file, text.size(), tokenizer.encode(text)};
    if (!arguments.json) {
      print_text(arguments, encoded);
      continue;
    }
    nlohmann::json entry = {{"file", file},
                            {"bytes", encoded.bytes},
                            {"tokens", encoded.ids.size()},
                            {"bytes_per_token", encoded.bytes_per_token()}};
    if (arguments.ids) entry["ids"] = encoded.ids;
    files.push_back(std::move(entry));
  }
  if (!arguments.json) return;
  print_json({{"tokenizer", arguments.tokenizer},
              {"vocabulary", tokenizer.vocabulary_size()},
              {"files", std::move(files)}});
}

}  // namespace

void add_tokenize(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("tokenize", "Learn a tokenizer from text, or apply one to text");
  const auto arguments = std::make_shared<TokenizeArguments>();
  CLI::Option* train =
      command
          ->add_option("--train", arguments->train,
                       "Texts (UTF-8, plain or gzip) to learn a byte-pair encoding from")
          ->type_name("FILE");
  CLI::Option* out = command->add_option("--out", arguments->out, "The tokenizer.json to write")
                         ->type_name("FILE");
  CLI::Option* vocabulary =
      command
          ->add_option("--vocabulary", arguments->vocabulary,
                       "Tokens to learn, the 256 bytes and the special tokens among them")
          ->type_name("N")
          ->capture_default_str();
  CLI::Option* special =
      command
          ->add_option("--special", arguments->special,
                       "A special token; several times for several, which get the last ids")
          ->type_name("TOKEN")
          ->expected(1)
          ->take_all()
          ->allow_extra_args(false)  // which would take [MASK] for a list of one
          ->capture_default_str();
  CLI::Option* tokenizer =
      command
          ->add_option("--tokenizer", arguments->tokenizer,
                       "A tokenizer.json as Hugging Face writes it (byte-pair encoding), or bytes")
          ->type_name("FILE");
  CLI::Option* input =
      command->add_option("--input", arguments->inputs, "Texts (UTF-8, plain or gzip) to encode")
          ->type_name("FILE");
  CLI::Option* ids =
      command->add_flag("--ids", arguments->ids, "Print the ids, a line for each file");
  add_json_flag(*command, arguments->json);
  train->needs(out)->excludes(tokenizer, input, ids);
  tokenizer->needs(input);
  for (CLI::Option* option : {out, vocabulary, special}) option->needs(train);
  for (CLI::Option* option : {input, ids}) option->needs(tokenizer);
  command->footer(
      "Examples:\n"
      "  concord tokenize --train book.txt --vocabulary 8192 --out tokenizer.json\n"
      "  concord tokenize --tokenizer tokenizer.json --input book.txt --json\n"
      "  concord tokenize --tokenizer gpt2/tokenizer.json --input prompt.txt --ids");
  command->callback([arguments] {
    if (!arguments->train.empty()) {
      train_tokenizer(*arguments);
    } else if (!arguments->tokenizer.empty()) {
      encode_files(*arguments);
    } else {
      throw CLI::RequiredError("one of --train and --tokenizer");
    }
  });
}

}  // namespace concord::cli
