#include "concord/net/job_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "concord/base/error.h"
#include "concord/base/file.h"
#include "concord/net/member.h"

namespace concord::net {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::ThrowsMessage;

class JobFileTest : public testing::Test {
 protected:
  JobFileTest() : folder_(fs::path(testing::TempDir()) / "concord_job_XXXXXX") {
    std::string name = folder_.string();
    folder_ = mkdtemp(name.data());
    setenv("XDG_RUNTIME_DIR", folder_.c_str(), 1);
    setenv("XDG_CACHE_HOME", folder_.c_str(), 1);
  }
  ~JobFileTest() override {
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("XDG_CACHE_HOME");
    fs::remove_all(folder_);
  }

  fs::path folder_;
  const JobEntry entry_{Secret::random(), {{"10.0.0.1", 4711}, {"::1", 4712}}};
};

TEST_F(JobFileTest, HandsOverStoreAndSecretAndIsGone) {
  for (const bool one_host : {true, false}) {
    const fs::path path = job_file_path("slurm-1.0/..", one_host);
    EXPECT_THAT(path.string(), testing::StartsWith(folder_.string()));
    EXPECT_EQ(path.filename().string().find('/'), std::string::npos);
    EXPECT_FALSE(read_job_file(path));
    {
      const JobFile file(path, entry_);
      struct stat status;
      ASSERT_EQ(stat(path.c_str(), &status), 0);
      EXPECT_EQ(status.st_mode & 07777, 0600U);
      const std::optional<JobEntry> read = read_job_file(path);
      ASSERT_TRUE(read);
      EXPECT_EQ(read->secret.to_hex(), entry_.secret.to_hex());
      EXPECT_EQ(to_string(read->store), "10.0.0.1:4711,[::1]:4712");
      EXPECT_THAT([&] { JobFile(path, entry_); }, ThrowsMessage<Error>(HasSubstr("is running")));
    }
    EXPECT_FALSE(fs::exists(path));
  }
}

TEST_F(JobFileTest, OfAProcessThatWasKilledIsReplaced) {
  const fs::path path = job_file_path("a", true);
  const pid_t child = fork();
  if (child == 0) {
    new JobFile(path, entry_);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  ASSERT_TRUE(fs::exists(path));
  const JobEntry other{Secret::random(), {{"10.0.0.2", 4711}}};
  const JobFile file(path, other);
  EXPECT_EQ(read_job_file(path)->secret.to_hex(), other.secret.to_hex());
}

TEST_F(JobFileTest, IsNotBelievedWhereOthersMayReadIt) {
  const fs::path path = job_file_path("a", true);
  write_file_atomically(path, "concord job 1\n");
  chmod(path.c_str(), 0644);
  EXPECT_THAT([&] { read_job_file(path); }, ThrowsMessage<Error>(HasSubstr("not believed")));
  fs::remove(path);
  fs::create_symlink("/etc/passwd", path);
  EXPECT_THAT([&] { read_job_file(path); }, ThrowsMessage<Error>(HasSubstr("cannot open")));
  fs::remove(path);
  write_file_atomically(path, "something else\n");
  chmod(path.c_str(), 0600);
  EXPECT_FALSE(read_job_file(path));
}

}  // namespace
}  // namespace concord::net
