#include "concord/base/file_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <span>

#include "concord/base/error.h"

namespace concord {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;

// Of files, in this process's memory now.
std::size_t resident_of_files() {
  std::size_t all = 0, resident = 0, of_files = 0;
  std::ifstream("/proc/self/statm") >> all >> resident >> of_files;
  return of_files * static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

std::string refusal(const fs::path& folder, std::size_t bytes) {
  try {
    FileMemory memory(folder, bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

// The folder of the build: it is on a disk.
const fs::path kFolder = fs::current_path();
constexpr std::size_t kMiB = std::size_t{1} << 20;

TEST(FileMemory, IsZeroAndKeepsWhatIsWrittenWhileItIsNotResident) {
  const auto files = [] { return std::distance(fs::directory_iterator(kFolder), {}); };
  const auto before = files();
  FileMemory memory(kFolder, 32 * kMiB);
  EXPECT_EQ(files(), before) << "the file has no name";
  const std::span<std::byte> bytes(memory.data(), memory.bytes());
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i % 251);
  const std::size_t all = resident_of_files();
  memory.release(0, 30 * kMiB);
  EXPECT_NEAR(static_cast<double>(all - resident_of_files()), 30.0 * kMiB, 1.0 * kMiB);
  memory.prefetch(5 * kMiB + 17, 3 * kMiB);
  memory.discard(30 * kMiB, 2 * kMiB);
  EXPECT_NEAR(static_cast<double>(all - resident_of_files()), 32.0 * kMiB, 1.0 * kMiB);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    ASSERT_EQ(bytes[i], static_cast<std::byte>(i % 251)) << i;
  }
  const FileMemory moved = std::move(memory);
  EXPECT_EQ(moved.data(), bytes.data());
  EXPECT_EQ(memory.data(), nullptr);
}

TEST(FileMemory, SaysWhyThereIsNone) {
  EXPECT_THAT(refusal("/nowhere/at/all", kMiB),
              AllOf(HasSubstr("no file of 1.0 MiB can be made in /nowhere/at/all: "),
                    HasSubstr("No such file")));
  EXPECT_THAT(refusal("/proc", kMiB), HasSubstr("can be made in /proc: "));
  EXPECT_THAT(refusal(kFolder, std::size_t{1} << 61), HasSubstr("can be made in "));
  if (fs::exists("/dev/shm")) {
    EXPECT_THAT(refusal("/dev/shm", kMiB), HasSubstr("lies in memory itself (tmpfs)"));
  }
}

// The system would answer with a signal.
TEST(FileMemory, HeedsTheLimitOnFiles) {
  struct rlimit before {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  struct rlimit small = before;
  small.rlim_cur = kMiB;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const std::string refused = refusal(kFolder, 2 * kMiB), taken = refusal(kFolder, kMiB);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(refused, HasSubstr("files of this process may have 1.0 MiB (ulimit -f)"));
  EXPECT_EQ(taken, "");
}

}  // namespace
}  // namespace concord
