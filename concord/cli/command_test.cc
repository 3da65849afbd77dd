// The command as a user runs it: words in, exit code, standard output and standard error out.
#include "concord/cli/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <sstream>
#include <thread>

#include "concord/base/file.h"
#include "concord/cli/command_test.h"
#include "concord/cli/completion.h"
#include "concord/kernels/cpu/instruction_set.h"

namespace concord::cli {
namespace {

using nlohmann::json;
using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

// A few steps on data made in memory.
class Command : public CommandTest {
 protected:
  Command() : CommandTest(few_steps("epochs = 2")) {}
};

TEST_F(Command, HelpNamesEveryCommandAndGoesToStandardOutput) {
  const Outcome help = run("--help");
  EXPECT_EQ(help.code, 0);
  EXPECT_EQ(help.err, "");
  for (const char* name : {"train", "launch", "preflight", "eval", "predict", "info", "tokenize",
                           "bench", "doctor", "completion"}) {
    EXPECT_THAT(help.out, HasSubstr(std::string("\n  ") + name + " "));
  }
}

TEST_F(Command, HelpOfEachCommandHasAnExample) {
  for (const std::string name : {"train", "launch", "preflight", "eval", "predict", "info",
                                 "tokenize", "bench", "bench step", "doctor", "completion"}) {
    const Outcome help = run(name + " --help");
    EXPECT_EQ(help.code, 0) << name;
    EXPECT_THAT(help.out, HasSubstr("Example")) << name;
    EXPECT_THAT(help.out, HasSubstr("concord " + name)) << name;
  }
}

TEST_F(Command, VersionIsPrinted) {
  const Outcome version = run("--version");
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, testing::MatchesRegex("concord [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(Command, UsageErrorsExitWithTwoAndNameTheNearest) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "concord: expected one of the commands train, launch, "},
      {"trian small.toml", "concord: unknown command \"trian\"; did you mean \"train\"?\n"},
      {"train", "concord: CONFIG.toml is required\n"},
      {"train small.toml --jsn", "concord: unknown option \"--jsn\"; did you mean \"--json\"?\n"},
      {"train small.toml more", "concord: unexpected argument \"more\"\n"},
      {"eval small.toml", "concord: --checkpoint is required\n"},
      {"bench stp small.toml", "concord: unknown command \"stp\"; did you mean \"step\"?\n"},
      {"bench step small.toml --steps 0", "concord: --steps: "},
      {"plan show small.toml --out ''", "concord: --out: expected the name of a file\n"},
      {"tokenize", "concord: one of --train and --tokenizer is required\n"},
      {"tokenize --train small.toml", "concord: --train requires --out\n"},
      {"tokenize --tokenizer bytes", "concord: --tokenizer requires --input\n"},
      {"completion tcsh", "concord: "},
  };
  for (const auto& [words, message] : cases) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 2) << words;
    EXPECT_EQ(outcome.out, "") << words;
    EXPECT_THAT(outcome.err, StartsWith(message)) << words;
    EXPECT_THAT(outcome.err, HasSubstr("\ntry \"concord")) << words;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 2) << outcome.err;
  }
}

TEST_F(Command, ErrorsAreOneLineAndExitWithOne) {
  const std::pair<const char*, const char*> cases[] = {
      {"train absent.toml", "concord: "},
      {"train small.toml --set train.bacth=3",
       "concord: --set train.bacth=3: unknown key \"train.bacth\"; did you mean "},
      {"info small.toml --set train.batch=many", "concord: --set "},
      {"eval small.toml --checkpoint absent", "concord: "},
      {"tokenize --tokenizer small.toml --input small.toml",
       "concord: small.toml: not valid JSON from byte 3 of 155 on"},
  };
  for (const auto& [words, message] : cases) {
    const Outcome outcome = run(words);
    EXPECT_EQ(outcome.code, 1) << words;
    EXPECT_EQ(outcome.out, "") << words;
    EXPECT_THAT(outcome.err, StartsWith(message)) << words;
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome.err;
  }
}

TEST_F(Command, DoctorMeasuresTheMachine) {
  const json result = run("doctor --json").last_line();
  EXPECT_GE(result["cores"], 1);
  EXPECT_GE(result["usable_threads"], 1);
  EXPECT_GT(result["peak_flops_per_second"], 1e8);
  EXPECT_GT(result["memory_bytes_per_second"], 1e7);
  EXPECT_TRUE(result["libraries"].contains("oneDNN"));
  EXPECT_THAT(run("doctor").out, HasSubstr("\nlibraries\n"));
}

TEST_F(Command, TrainPrintsOneJsonObjectAndEvalAgreesWithIt) {
  const Outcome trained = run("train small.toml --json");
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(std::ranges::count(trained.out, '\n'), 1);
  EXPECT_THAT(trained.err, HasSubstr("test loss"));
  const json result = trained.last_line();
  EXPECT_EQ(result["step"], 8);
  EXPECT_EQ(result["epoch"], 2);
  EXPECT_TRUE(result["loss"].is_number());
  EXPECT_GE(result["accuracy"], 0);
  EXPECT_LE(result["accuracy"], 1);
  EXPECT_GT(result["samples_per_second"], 0);
  EXPECT_GT(result["seconds"], 0);
  EXPECT_GT(result["peak_rss_bytes"], 1 << 20);
  EXPECT_FALSE(result["weights_hash"].get<std::string>().empty());
  EXPECT_EQ(result["interrupted"], false);

  const Outcome evaluated = run("eval small.toml --checkpoint run --json");
  ASSERT_EQ(evaluated.code, 0) << evaluated.err;
  EXPECT_EQ(evaluated.last_line()["weights_hash"], result["weights_hash"]);
  EXPECT_EQ(evaluated.last_line()["accuracy"], result["accuracy"]);
  EXPECT_EQ(evaluated.last_line()["step"], result["step"]);
}

TEST_F(Command, AccuracyOfARegressionIsNull) {
  const Outcome trained =
      run("train small.toml --json --quiet --set model.loss=mse --set data.targets=2 "
          "--set data.classes=10 --set train.max_steps=2");
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.err, "");
  EXPECT_TRUE(trained.last_line()["accuracy"].is_null());
}

TEST_F(Command, AccuracyOfABinaryCrossEntropyIsAFraction) {
  const Outcome trained =
      run("train small.toml --json --quiet --set model.loss=bce --set data.targets=2 "
          "--set data.classes=10 --set train.max_steps=2");
  ASSERT_EQ(trained.code, 0) << trained.err;
  EXPECT_GT(trained.last_line()["accuracy"], 0);
  EXPECT_LT(trained.last_line()["accuracy"], 1);
  EXPECT_THAT(run("eval small.toml --checkpoint run --set data.targets=2 --set data.classes=10 "
                  "--set model.loss=mse")
                  .err,
              HasSubstr("the checkpoint's model was trained with \"bce\": set it so"));
}

TEST_F(Command, QuietTrainingSaysNothingButTheResult) {
  const Outcome trained = run("train small.toml --quiet --set train.max_steps=2");
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_EQ(trained.err, "");
  EXPECT_THAT(trained.out, StartsWith("step 2, 0 whole epochs: loss "));
}

TEST_F(Command, StoppedTrainingSavesAndResumesToTheSameWeights) {
  const std::string words =
      "train small.toml --json --set train.epochs=200 --set train.log_every=1 "
      "--set train.eval_every_epochs=0";
  const Outcome stopped = run_and_signal(words, "step 5/", SIGTERM);
  ASSERT_EQ(stopped.code, 0) << stopped.err;
  const json at_stop = stopped.last_line();
  ASSERT_EQ(at_stop["interrupted"], true) << "the run was over before the signal";
  EXPECT_THAT(stopped.err, HasSubstr("concord train small.toml --set train.epochs=200 "));
  EXPECT_THAT(stopped.err, EndsWith(" --resume\n"));

  const Outcome resumed = run(words + " --quiet --resume");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_EQ(resumed.last_line()["step"], 800);
  const Outcome whole = run(words + " --quiet --set output.dir=whole");
  EXPECT_EQ(resumed.last_line()["weights_hash"], whole.last_line()["weights_hash"]);
}

TEST_F(Command, PredictNamesTheClassOfEachFile) {
  ASSERT_EQ(run("train small.toml --quiet").code, 0);
  // A .npy file, version 1.0: 16 values of f32.
  std::string npy = "\x93NUMPY\x01";
  npy += '\0';
  std::string header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 4, 1), }";
  header.resize(117, ' ');
  header += '\n';
  npy += static_cast<char>(header.size());
  npy += '\0';
  npy += header + std::string(64, '\0');
  write_file_atomically(folder_ / "zero.npy", npy);
  const Outcome predicted =
      run("predict small.toml --checkpoint run --input zero.npy zero.npy --json");
  ASSERT_EQ(predicted.code, 0) << predicted.err;
  const json list = predicted.last_line()["predictions"];
  ASSERT_EQ(list.size(), 2U);
  EXPECT_EQ(list[0]["file"], "zero.npy");
  EXPECT_EQ(list[0]["values"].size(), 3U);
  EXPECT_GE(list[0]["label"], 0);
  EXPECT_EQ(list[0], list[1]);
}

TEST_F(Command, PredictContinuesAPrompt) {
  write_file_atomically(folder_ / "text.toml", R"(
[model]
name = "gpt"
layers = 1
width = 16
heads = 2
[data]
kind = "text"
train_file = "small.toml"
length = 8
[train]
batch = 4
epochs = 1
threads = 1
[output]
dir = "run"
)");
  ASSERT_EQ(run("train text.toml --quiet").code, 0);
  const std::string predict = "predict text.toml --checkpoint run ";
  const Outcome told = run(predict + "--prompt '[data]' --tokens 20 --top-k 5 --json");
  ASSERT_EQ(told.code, 0) << told.err;
  const json result = told.last_line();
  EXPECT_EQ(result["prompt"], "[data]");
  EXPECT_EQ(result["prompt_tokens"], 6);
  EXPECT_EQ(result["tokens"], 20);
  EXPECT_GT(result["tokens_per_second"], 0);

  const Outcome written = run(predict + "--prompt '[data]' --tokens 20 --top-k 5");
  EXPECT_EQ(written.out, "[data]" + result["text"].get<std::string>() + "\n");
  EXPECT_THAT(written.err, HasSubstr("20 tokens after 6 of the prompt"));
  const Outcome single = run(predict + "--prompt '[data]' --tokens 1 --json");
  EXPECT_TRUE(single.last_line()["tokens_per_second"].is_null());

  EXPECT_EQ(run(predict + "--prompt -").code, 1);  // standard input is empty
  EXPECT_THAT(run(predict + "--prompt x --top-k 0").err, HasSubstr("expected 1 to 256"));
  EXPECT_THAT(run(predict + "--input small.toml").err, HasSubstr("holds a model of tokens"));
  EXPECT_EQ(run(predict + "--prompt x --input small.toml").code, 2);
  EXPECT_EQ(run(predict + "--input small.toml --tokens 3").code, 2);
  const Outcome nothing = run(predict);
  EXPECT_EQ(nothing.code, 2);
  EXPECT_THAT(nothing.err, HasSubstr("one of --input, --prompt and --fill"));
}

TEST_F(Command, InfoCountsParametersWorkAndMemory) {
  const Outcome outcome = run("info small.toml --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json info = outcome.last_line();
  EXPECT_EQ(info["parameter_count"], 16 * 8 + 8 + 8 * 3 + 3);
  EXPECT_EQ(info["parameters"].size(), 4U);
  EXPECT_EQ(info["batch"], 32);
  EXPECT_EQ(info["loss"], "cross_entropy");
  // Forward, and backward for weights and (but for the first layer) for inputs.
  EXPECT_GE(info["flops_per_sample"], 2.0 * (2 * 16 * 8 + 3 * 8 * 3));
  EXPECT_GE(info["arena_bytes"], info["arena_lower_bound_bytes"]);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "run"));
  const std::string text = run("info small.toml --program --set train.leaves=1").out;
  EXPECT_THAT(text, HasSubstr("\nbatch            32 in 1 leaf, computed 32 at a time in f32\n"));
  EXPECT_THAT(text, HasSubstr("\nloss             cross_entropy\n"));
  EXPECT_THAT(text, HasSubstr("\nmicrobatch "));
}

TEST_F(Command, Bf16IsRefusedWhereTheProcessorHasNone) {
  for (const char* name : {"DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"}) setenv(name, "AVX2", 1);
  const Outcome refused = run("train small.toml --set train.precision=bf16");
  for (const char* name : {"DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA"}) unsetenv(name);
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("this one has AVX2. Use train.precision = \"f32\""));
}

TEST_F(Command, Bf16TrainsAndIsEvaluatedAsBf16) {
  if (!cpu::has_bf16()) GTEST_SKIP() << "the processor has no bf16";
  const Outcome trained = run("train small.toml --set train.precision=bf16 --json");
  EXPECT_EQ(trained.code, 0) << trained.err;
  EXPECT_THAT(trained.err, HasSubstr(", bf16, "));
  const Outcome other = run("eval small.toml --checkpoint run");
  EXPECT_EQ(other.code, 1);
  EXPECT_THAT(other.err, HasSubstr("train.precision = \"f32\", but the checkpoint's model was "
                                   "trained with \"bf16\""));
  const Outcome evaluated =
      run("eval small.toml --checkpoint run --set train.precision=bf16 --json");
  EXPECT_EQ(evaluated.last_line()["loss"], trained.last_line()["loss"]) << evaluated.err;
}

TEST_F(Command, TokenizeLearnsATokenizerAndAppliesIt) {
  const Outcome learned =
      run("tokenize --train small.toml --vocabulary 262 --out tokenizer.json --json");
  ASSERT_EQ(learned.code, 0) << learned.err;
  EXPECT_EQ(learned.err, "");
  EXPECT_EQ(learned.last_line()["vocabulary"], 262);

  const Outcome counted = run("tokenize --tokenizer tokenizer.json --input small.toml --json");
  ASSERT_EQ(counted.code, 0) << counted.err;
  const json file = counted.last_line()["files"][0];
  EXPECT_EQ(file["bytes"], std::filesystem::file_size(folder_ / "small.toml"));
  EXPECT_LT(file["tokens"], file["bytes"]);
  EXPECT_FALSE(file.contains("ids"));
  write_file_atomically(folder_ / "short", "Z<|endoftext|>");
  EXPECT_EQ(run("tokenize --tokenizer tokenizer.json --input short --ids").out, "90 261\n");
  EXPECT_EQ(run("tokenize --tokenizer bytes --input short").out,
            "short: 14 bytes, 14 tokens, 1.000 bytes per token\n");
}

TEST_F(Command, TokenizeTakesSpecialTokensAsTheyStand) {
  const std::string train = "tokenize --train small.toml --vocabulary 262 --out tokenizer.json";
  ASSERT_EQ(run(train + " --special '[MASK]' --special '[END]'").code, 0);
  write_file_atomically(folder_ / "short", "Z[MASK]Z[END]");
  EXPECT_EQ(run("tokenize --tokenizer tokenizer.json --input short --ids").out, "90 260 90 261\n");
}

TEST_F(Command, BenchStepMeasuresTheStepAndItsOps) {
  const Outcome outcome = run("bench step small.toml --steps 3 --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json result = outcome.last_line();
  EXPECT_GT(result["step_seconds"], 0);
  EXPECT_NEAR(result["samples_per_second"].get<double>() * result["step_seconds"].get<double>(), 32,
              0.01);
  EXPECT_GT(result["flops_per_second"], 0);
  EXPECT_GT(result["share_of_peak"], 0);
  EXPECT_GE(result["spread"], 0);
  double shares = 0;
  for (const json& op : result["by_op"]) shares += op["share"].get<double>();
  EXPECT_NEAR(shares, 1, 1e-6);
  EXPECT_FALSE(result.contains("efficiency"));
}

TEST_F(Command, BenchStepRunsProductsAlone) {
  const std::string words = "bench step small.toml --steps 3 --alone 2";
  const Outcome outcome = run(words + " --json");
  ASSERT_EQ(outcome.code, 0) << outcome.err;
  const json result = outcome.last_line();
  const double alone = result["products_alone_seconds"];
  EXPECT_GT(alone, 0);
  EXPECT_EQ(result["efficiency"], alone / result["step_seconds"].get<double>());
  EXPECT_THAT(run(words).out, testing::ContainsRegex("\nefficiency +[0-9.]+ %: matrix products"));
  EXPECT_EQ(run("bench step small.toml --alone 0").code, 2);
}

std::vector<const CLI::App*> all_commands(const CLI::App& app) {
  std::vector<const CLI::App*> result = {&app};
  for (const CLI::App* command : shown_commands(app)) {
    for (const CLI::App* below : all_commands(*command)) result.push_back(below);
  }
  return result;
}

TEST(ManPage, HoldsEveryCommandAndOption) {
  const std::string page = read_file(CONCORD_SOURCE_DIR "/docs/concord.1");
  const std::unique_ptr<CLI::App> app = make_app();
  for (const CLI::App* command : all_commands(*app)) {
    EXPECT_THAT(page, HasSubstr(command->get_name())) << command->get_name();
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) {
        std::string troff = "\\-\\-";
        for (const char c : name) troff += c == '-' ? std::string("\\-") : std::string(1, c);
        EXPECT_THAT(page, HasSubstr(troff)) << command->get_name();
      }
    }
  }
}

TEST(ManPage, UsesKnownMacrosAndBalancesItsBlocks) {
  std::istringstream lines(read_file(CONCORD_SOURCE_DIR "/docs/concord.1"));
  const std::vector<std::string> known = {".TH", ".SH", ".SS", ".TP", ".PP",  ".B",
                                          ".I",  ".BR", ".RB", ".RI", ".BI",  ".IR",
                                          ".EX", ".EE", ".RS", ".RE", ".\\\""};
  std::string line;
  int examples = 0;
  for (int number = 1; std::getline(lines, line); ++number) {
    EXPECT_FALSE(line.empty()) << "empty line " << number;
    if (!line.starts_with(".")) continue;
    const std::string macro = line.substr(0, line.find(' '));
    EXPECT_THAT(known, testing::Contains(macro)) << "line " << number;
    examples += macro == ".EX";
    examples -= macro == ".EE";
    EXPECT_TRUE(examples == 0 || examples == 1) << "line " << number;
  }
  EXPECT_EQ(examples, 0);
}

// Sources the script in bash and completes `words`, the last of which may be a part.
std::string completed(const std::string& script, const std::vector<std::string>& words) {
  const std::string file = testing::TempDir() + "concord_completion";
  std::string array;
  for (const std::string& word : words) array += " '" + word + "'";
  write_file_atomically(file, script + "COMP_WORDS=(" + array +
                                  ")\nCOMP_CWORD=" + std::to_string(words.size() - 1) +
                                  "\n_concord\necho \"${COMPREPLY[*]}\"\n");
  std::FILE* pipe = popen(("bash '" + file + "' 2>/dev/null").c_str(), "r");
  std::string text(1 << 16, '\0');
  text.resize(std::fread(text.data(), 1, text.size(), pipe));
  EXPECT_EQ(pclose(pipe), 0);
  std::filesystem::remove(file);
  return text;
}

TEST(Completion, BashCompletesCommandsOptionsAndKeys) {
  const std::string script = bash_completion(*make_app());
  EXPECT_EQ(completed(script, {"concord", "tr"}), "train trace\n");
  EXPECT_EQ(completed(script, {"concord", "bench", "s"}), "step\n");
  EXPECT_EQ(completed(script, {"concord", "train", "x.toml", "--res"}), "--resume\n");
  EXPECT_EQ(completed(script, {"concord", "bench", "step", "x.toml", "--st"}), "--steps\n");
  EXPECT_EQ(completed(script, {"concord", "train", "x.toml", "--set", "train.ba"}),
            "train.batch=\n");
  EXPECT_EQ(completed(script, {"concord", "completion", "z"}), "zsh\n");
}

TEST(Completion, OtherShellsGetEveryCommandAndOption) {
  const std::unique_ptr<CLI::App> app = make_app();
  EXPECT_THAT(zsh_completion(*app), StartsWith("#compdef concord\n"));
  const std::string fish = fish_completion(*app);
  EXPECT_THAT(fish, HasSubstr("-a train -d 'Train a model'"));
  EXPECT_THAT(fish, HasSubstr("-l checkpoint -r -d "));
  EXPECT_THAT(fish, HasSubstr("__fish_seen_subcommand_from bench; and "
                              "__fish_seen_subcommand_from step' -l steps -r"));
}

}  // namespace
}  // namespace concord::cli
