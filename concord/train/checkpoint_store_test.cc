#include "concord/train/checkpoint_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::train {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

class CheckpointStoreTest : public testing::Test {
 protected:
  CheckpointStoreTest() {
    std::string name = (fs::path(testing::TempDir()) / "concord_checkpoints_XXXXXX").string();
    CONCORD_CHECK(::mkdtemp(name.data()) != nullptr);
    run_ = name;
    directory_ = run_ / "checkpoints";
  }
  ~CheckpointStoreTest() override { fs::remove_all(run_); }

  fs::path at(std::int64_t step) const { return directory_ / checkpoint_name(step); }

  fs::path run_;
  fs::path directory_;
};

Snapshot snapshot(std::int64_t step, std::optional<double> score = std::nullopt,
                  std::int64_t elements = 3) {
  Snapshot result;
  result.info.step = step;
  result.info.epoch = step / 10;
  result.info.score = score;
  result.info.metrics = {{"test_accuracy", 0.1}};
  result.info.state = {{"kernels", {"a", "b"}}, {"seed", 18446744073709551615u}};
  const Tensor weight = slot(result.weights, "layer.weight", {DType::kF32, {elements}});
  for (float& value : weight.as<float>()) value = static_cast<float>(step) + 0.5f;
  slot(result.optimizer, "layer.weight.momentum", {DType::kF64, {2, 1}}).as<double>()[1] = -1e-300;
  return result;
}

void save_now(CheckpointStore& store, Snapshot snapshot) {
  store.save(std::move(snapshot));
  EXPECT_EQ(store.wait()->error, "");
}

void flip_bit(const fs::path& path, std::size_t offset) {
  std::string bytes = read_file(path);
  bytes.at(offset) = static_cast<char>(bytes.at(offset) ^ 1);
  OutputFile(path).write(bytes);
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(CheckpointStoreTest, WhatWasSavedIsLoaded) {
  CheckpointStore store(directory_, 2);
  save_now(store, snapshot(1234, 0.75));
  const Checkpoint loaded = load_latest(directory_).value();
  EXPECT_EQ(loaded.directory.filename(), "step-00001234");
  EXPECT_EQ(loaded.info.step, 1234);
  EXPECT_EQ(loaded.info.epoch, 123);
  EXPECT_EQ(loaded.info.score, 0.75);
  EXPECT_EQ(loaded.info.metrics, snapshot(1234).info.metrics);
  EXPECT_EQ(loaded.info.state, snapshot(1234).info.state);
  EXPECT_THAT(loaded.weights.names(), ElementsAre("layer.weight"));
  EXPECT_EQ(loaded.weights.type("layer.weight"), (TensorType{DType::kF32, {3}}));
  float weights[3];
  std::memcpy(weights, loaded.weights.bytes("layer.weight").data(), sizeof(weights));
  EXPECT_THAT(weights, ElementsAre(1234.5f, 1234.5f, 1234.5f));
  double momentum[2];
  std::memcpy(momentum, loaded.optimizer.bytes("layer.weight.momentum").data(), sizeof(momentum));
  EXPECT_EQ(momentum[1], -1e-300);
}

TEST_F(CheckpointStoreTest, KeepsTheLastAndTheBest) {
  CheckpointStore store(directory_, 2);
  save_now(store, snapshot(1, 0.5));
  save_now(store, snapshot(2, 0.9));
  save_now(store, snapshot(3, 0.9));
  save_now(store, snapshot(4, std::numeric_limits<double>::quiet_NaN()));
  save_now(store, snapshot(5));
  EXPECT_THAT(list_checkpoints(directory_), ElementsAre(2, 4, 5));
  EXPECT_EQ(load_best(directory_)->info.step, 2);
  EXPECT_EQ(load_latest(directory_)->info.step, 5);
  save_now(store, snapshot(6, 0.95));
  EXPECT_THAT(list_checkpoints(directory_), ElementsAre(5, 6));
}

TEST_F(CheckpointStoreTest, TheBestOfTheRunBeforeIsStillKeptAfterResuming) {
  save_now(*std::make_unique<CheckpointStore>(directory_, 1), snapshot(1, 0.9));
  CheckpointStore store(directory_, 1, 1);
  save_now(store, snapshot(2, 0.1));
  save_now(store, snapshot(3, 0.1));
  EXPECT_THAT(list_checkpoints(directory_), ElementsAre(1, 3));
}

TEST_F(CheckpointStoreTest, ARunThatDoesNotResumeRefusesTheCheckpointsOfAnother) {
  save_now(*std::make_unique<CheckpointStore>(directory_, 1), snapshot(1));
  EXPECT_THAT(error_of([&] { CheckpointStore(directory_, 1); }), HasSubstr("earlier run"));
  EXPECT_THAT(error_of([&] { CheckpointStore(directory_, 0, 1); }), HasSubstr("at least 1"));
  EXPECT_EQ(load_latest(directory_)->info.step, 1);
}

TEST_F(CheckpointStoreTest, ResumingEarlierKeepsLaterCheckpointsUntilTheNextSave) {
  {
    CheckpointStore store(directory_, 5);
    for (const std::int64_t step : {1, 2, 3, 4}) save_now(store, snapshot(step));
  }
  CheckpointStore store(directory_, 1, 1);
  EXPECT_THAT(list_checkpoints(directory_), ElementsAre(1, 2, 3, 4));
  testing::internal::CaptureStderr();
  Snapshot again = snapshot(3);
  again.info.state = "new history";
  save_now(store, std::move(again));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("step-00000004 is removed"));
  EXPECT_THAT(list_checkpoints(directory_), ElementsAre(3));
  EXPECT_EQ(load_latest(directory_)->info.state, "new history");
}

TEST_F(CheckpointStoreTest, SnapshotMemoryServesAgain) {
  CheckpointStore store(directory_, 1);
  EXPECT_TRUE(store.take_snapshot().weights.empty());
  Snapshot first = snapshot(1);
  const std::byte* memory = first.weights.at("layer.weight").view().data;
  save_now(store, std::move(first));
  Snapshot second = store.take_snapshot();
  EXPECT_EQ(slot(second.weights, "layer.weight", {DType::kF32, {3}}).data, memory);
  EXPECT_EQ(slot(second.weights, "layer.weight", {DType::kF32, {4}}).type.shape, Shape{4});
}

TEST_F(CheckpointStoreTest, EveryDamageIsReportedAndThePreviousCheckpointUsed) {
  CheckpointStore store(directory_, 2);
  save_now(store, snapshot(1));
  for (const std::string_view file : {kWeightsFile, kOptimizerFile, kManifestFile}) {
    const auto damage = [&](const std::function<void(const fs::path&)>& inflict,
                            const char* reason) {
      SCOPED_TRACE(std::string(file) + ": " + reason);
      save_now(store, snapshot(2));
      inflict(at(2) / file);
      testing::internal::CaptureStderr();
      EXPECT_EQ(load_latest(directory_)->info.step, 1);
      const std::string line = testing::internal::GetCapturedStderr();
      EXPECT_THAT(line, HasSubstr((at(2) / file).string()));
      EXPECT_THAT(line, HasSubstr(reason));
      EXPECT_THAT(line, HasSubstr("using step-00000001 instead"));
      EXPECT_EQ(std::ranges::count(line, '\n'), 1);
    };
    const bool manifest = file == kManifestFile;
    damage([](const fs::path& path) { fs::resize_file(path, fs::file_size(path) - 1); },
           manifest ? "do not match the checksum" : "bytes, its manifest says");
    damage([](const fs::path& path) { fs::resize_file(path, 0); },
           manifest ? "do not match the checksum" : "bytes, its manifest says");
    damage([](const fs::path& path) { fs::remove(path); }, "No such file");
    const std::size_t size = fs::file_size(at(1) / file);
    for (const std::size_t offset : {std::size_t{0}, size / 2, size - 1}) {
      damage([&](const fs::path& path) { flip_bit(path, offset); }, "checksum");
    }
  }
}

TEST_F(CheckpointStoreTest, NoGoodCheckpointIsAnError) {
  EXPECT_FALSE(load_latest(directory_));
  EXPECT_FALSE(load_best(directory_));
  CheckpointStore store(directory_, 2);
  save_now(store, snapshot(1));
  fs::remove(at(1) / kWeightsFile);
  EXPECT_THAT(error_of([&] { load_latest(directory_); }),
              HasSubstr("all 1 checkpoints are damaged"));
}

TEST_F(CheckpointStoreTest, TheBestThatIsDamagedGivesWayToTheNextBest) {
  CheckpointStore store(directory_, 3);
  save_now(store, snapshot(1, 0.2));
  save_now(store, snapshot(2, 0.9));
  save_now(store, snapshot(3, 0.1));
  flip_bit(at(2) / kWeightsFile, 100);
  EXPECT_EQ(load_best(directory_)->info.step, 1);
  flip_bit(at(1) / kManifestFile, 100);
  EXPECT_EQ(load_best(directory_)->info.step, 3);
}

TEST_F(CheckpointStoreTest, ACheckpointIsFoundByItsOwnPathItsDirectoryOrItsRun) {
  CheckpointStore store(directory_, 2);
  save_now(store, snapshot(1, 0.9));
  save_now(store, snapshot(2, 0.1));
  EXPECT_EQ(load_checkpoint(at(1)).info.step, 1);
  EXPECT_EQ(load_checkpoint(at(1) / "").info.step, 1);
  EXPECT_EQ(load_checkpoint(directory_).info.step, 2);
  EXPECT_EQ(load_checkpoint(run_).info.step, 2);
  EXPECT_EQ(load_checkpoint(run_, Choice::kBest).info.step, 1);
  flip_bit(at(1) / kWeightsFile, 10);
  EXPECT_THAT(error_of([&] { load_checkpoint(at(1)); }), HasSubstr(std::string(kWeightsFile)));
  fs::remove(at(1) / kManifestFile);
  EXPECT_THAT(error_of([&] { load_checkpoint(at(1)); }), HasSubstr(std::string(kManifestFile)));
  EXPECT_THAT(error_of([&] { load_checkpoint(run_ / "absent"); }), HasSubstr("no checkpoint in"));
}

TEST_F(CheckpointStoreTest, WhatACrashLeftIsClearedAndNothingElse) {
  save_now(*std::make_unique<CheckpointStore>(directory_, 2), snapshot(1));
  fs::create_directory(directory_ / "step-00000002.tmp");
  fs::rename(at(1), directory_ / "step-00000001.old");  // killed between the two renames
  fs::copy(directory_ / "step-00000001.old", directory_ / "mine.tmp");
  EXPECT_FALSE(load_latest(directory_));  // reading changes nothing
  const CheckpointStore store(directory_, 2, 1);
  EXPECT_EQ(load_latest(directory_)->info.step, 1);
  EXPECT_TRUE(fs::exists(directory_ / "mine.tmp"));
  EXPECT_FALSE(fs::exists(directory_ / "step-00000002.tmp"));
}

TEST_F(CheckpointStoreTest, AKillAtAnyMomentLeavesGoodCheckpoints) {
  save_now(*std::make_unique<CheckpointStore>(directory_, 2), snapshot(0));
  for (int round = 0; round < 8; ++round) {
    const std::int64_t from = load_latest(directory_)->info.step;
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      [&]() noexcept {  // an Error ends the child and must not unwind into the test program
        CheckpointStore store(directory_, 2, from);
        for (std::int64_t step = from + 1;; ++step) {
          store.save(snapshot(step, std::nullopt, 1 << 16));
          store.wait();
        }
      }();
    }
    while (list_checkpoints(directory_).back() == from) {
      ASSERT_EQ(::waitpid(child, nullptr, WNOHANG), 0) << "the child ended by itself";
      ::usleep(100);
    }
    ::usleep(static_cast<useconds_t>(700 * round));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    for (const std::int64_t step : list_checkpoints(directory_)) {
      EXPECT_EQ(load_checkpoint(at(step)).info.step, step);
    }
  }
}

// A full disk, by the only means that needs no rights: a limit on the size of a file.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

TEST_F(CheckpointStoreTest, AFullDiskLosesNothing) {
  CheckpointStore store(directory_, 1);
  save_now(store, snapshot(1));
  Snapshot large = snapshot(2, std::nullopt, 1 << 20);
  {
    const FileSizeLimit limit(1 << 20);
    store.save(std::move(large));
    const std::optional<SaveResult> result = store.wait();
    EXPECT_EQ(result->step, 2);
    EXPECT_THAT(result->error, HasSubstr("step 2 was not saved: cannot write"));
  }
  EXPECT_FALSE(store.wait());
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()), 1);
  EXPECT_EQ(load_latest(directory_)->info.step, 1);
  save_now(store, store.take_snapshot());  // there is room again
  EXPECT_EQ(load_latest(directory_)->info.step, 2);
}

// The part of a snapshot that one of two processes has.
Snapshot part_of(const Snapshot& whole, bool has_weights) {
  Snapshot part{.info = whole.info};
  const auto deal = [](const TensorMap& from, bool has, TensorMap& here, TensorTypes& elsewhere) {
    for (const auto& [name, tensor] : from) {
      if (!has) {
        elsewhere.emplace(name, tensor.type());
        continue;
      }
      std::memcpy(slot(here, name, tensor.type()).data, tensor.view().data, tensor.type().bytes());
    }
  };
  deal(whole.weights, has_weights, part.weights, part.weights_elsewhere);
  deal(whole.optimizer, !has_weights, part.optimizer, part.optimizer_elsewhere);
  return part;
}

TEST_F(CheckpointStoreTest, SeveralWriteWhatOneWrites) {
  const auto files = [&] {
    std::map<std::string, std::string> found;
    for (const auto& entry : fs::directory_iterator(at(7))) {
      found[entry.path().filename()] = read_file(entry.path());
    }
    return found;
  };
  CheckpointStore store(directory_, 1);
  save_now(store, snapshot(7, 0.5));
  const std::map<std::string, std::string> expected = files();
  EXPECT_EQ(expected.size(), 3u);

  const Snapshot whole = snapshot(7, 0.5);
  ASSERT_EQ(store.prepare(part_of(whole, true)), "");
  const fs::path temporary = CheckpointStore::being_written(directory_, 7);
  PartWriter writers[2];
  for (const int w : {1, 0}) writers[w].write(temporary, part_of(whole, w == 0));
  for (PartWriter& writer : writers) {
    EXPECT_EQ(writer.wait(), "");
    EXPECT_FALSE(writer.is_writing());
    EXPECT_EQ(writer.wait(), "");
  }
  EXPECT_EQ(writers[1].take_snapshot().optimizer.size(), 1u);
  EXPECT_EQ(files(), expected);  // what was there, until
  fs::remove_all(at(7));
  store.complete(whole.info);
  EXPECT_EQ(store.wait()->error, "");
  EXPECT_EQ(files(), expected);
  EXPECT_EQ(store.best_score(), 0.5);
}

TEST_F(CheckpointStoreTest, WhatOneOfSeveralCannotWriteLosesNothing) {
  CheckpointStore store(directory_, 1);
  save_now(store, snapshot(1));
  const Snapshot large = snapshot(2, std::nullopt, 1 << 20);
  ASSERT_EQ(store.prepare(part_of(large, false)), "");
  PartWriter writer;
  {
    const FileSizeLimit limit(1 << 20);
    writer.write(CheckpointStore::being_written(directory_, 2), part_of(large, true));
    EXPECT_THAT(writer.wait(), HasSubstr("cannot write"));
    EXPECT_THAT(store.prepare(part_of(large, false)), HasSubstr("cannot"));
  }
  EXPECT_THAT(store.discard(2, "rank 1: full").error, HasSubstr("2 was not saved: rank 1: full"));
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()), 1);
  EXPECT_EQ(load_latest(directory_)->info.step, 1);

  ASSERT_EQ(store.prepare(part_of(large, true)), "");
  fs::remove(CheckpointStore::being_written(directory_, 2) / kOptimizerFile);
  store.complete(large.info);
  EXPECT_THAT(store.wait()->error, HasSubstr("cannot read"));
  EXPECT_EQ(load_latest(directory_)->info.step, 1);
}

TEST_F(CheckpointStoreTest, AFailedReplacementLeavesTheCheckpointInPlace) {
  CheckpointStore store(directory_, 1);
  save_now(store, snapshot(1));
  Snapshot bad = snapshot(1);
  bad.info.state = "\xff";  // not UTF-8, which only shows at the manifest
  store.save(std::move(bad));
  EXPECT_THAT(store.wait()->error, HasSubstr("was not saved"));
  EXPECT_EQ(load_latest(directory_)->info.state, snapshot(1).info.state);
}

TEST(CheckpointName, RoundTripsAndRejectsOthers) {
  for (const std::int64_t step :
       {std::int64_t{0}, std::int64_t{1234}, std::int64_t{123456789012}}) {
    EXPECT_EQ(step_of(checkpoint_name(step)), step);
  }
  for (const char* name : {"step-1", "step-", "step-0000000x", "step-00000001.tmp", "step--0000001",
                           "step-99999999999999999999"}) {
    EXPECT_EQ(step_of(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace concord::train
