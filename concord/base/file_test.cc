#include "concord/base/file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <chrono>
#include <csignal>
#include <thread>

#include "concord/base/error.h"

namespace concord {
namespace {

std::filesystem::path scratch(const char* name) {
  return std::filesystem::path(testing::TempDir()) / name;
}

TEST(File, AtomicWriteIsReadBackAndLeavesNoTemporary) {
  const auto path = scratch("concord_file_test");
  write_file_atomically(path, "first");
  write_file_atomically(path, "second");
  EXPECT_EQ(read_file(path), "second");
  EXPECT_FALSE(std::filesystem::exists(fmt::format("{}.{}.tmp", path.string(), ::getpid())));
  std::filesystem::remove(path);
}

TEST(File, ErrorsNameThePath) {
  try {
    read_file("/nonexistent/file");
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("/nonexistent/file"), std::string::npos);
  }
  EXPECT_THROW(read_file("/"), Error);
  EXPECT_THROW(OutputFile("/dev/full").write("x"), Error);
}

TEST(File, AWriteThatFailsLeavesTheFileAsItWas) {
  const auto path = scratch("concord_file_torn");
  OutputFile file(path);
  file.write("12345");
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ::getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{8, before.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &limit);
  EXPECT_THROW(file.write("67890"), Error);
  ::setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(path), "12345");
  file.write("6");
  EXPECT_EQ(read_file(path), "123456");
  std::filesystem::remove(path);
}

TEST(File, APipeIsReadWhenItsWriterComesAndADeviceIsNoFile) {
  const std::filesystem::path pipe = scratch("concord_pipe");
  std::filesystem::remove(pipe);
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  std::thread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    OutputFile(pipe).write("late");
  });
  EXPECT_EQ(read_file(pipe), "late");
  writer.join();
  std::filesystem::remove(pipe);
  try {
    read_file("/dev/zero");
    FAIL();
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "cannot read /dev/zero: it is neither a file nor a pipe");
  }
}

TEST(File, SeveralWriteInTheMidstOfOneThatIsThere) {
  const auto path = scratch("concord_file_parts");
  const auto bytes = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  std::filesystem::remove(path);
  EXPECT_THROW(OutputFile(path, OutputFile::Mode::kExisting), Error);
  {
    OutputFile whole(path);
    whole.write("12");
    whole.resize(8);
    OutputFile one(path, OutputFile::Mode::kExisting), other(path, OutputFile::Mode::kExisting);
    one.write_at(6, bytes("78"));
    other.write_at(2, bytes("345"));
  }
  EXPECT_EQ(read_file(path), std::string("12345\00078", 8));
  std::filesystem::remove(path);
}

TEST(File, ReadStopsAtTheLimit) {
  const auto path = scratch("concord_file_limit");
  write_file_atomically(path, "12345");
  EXPECT_THROW(read_file(path, 4), Error);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace concord
