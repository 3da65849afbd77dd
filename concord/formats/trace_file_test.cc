#include "concord/formats/trace_file.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "concord/base/error.h"
#include "concord/base/file.h"

namespace concord::formats {
namespace {

const JobTrace kJob = {
    {{"matmul", "fc1", Lane::kCompute, 3, 0.0, 0.2},
     {"sum", "fc2.weight", Lane::kCommunication, 3, 0.1, 0.4},
     {"matmul", "fc1", Lane::kCompute, 3, 0.3, 0.35},
     {"data wait", "", Lane::kData, 4, 0.4, 0.5},
     {"forward", "microbatch 3, chunk 0", Lane::kPipeline, 4, 0.0, 0.9}},
    {{"a \"quoted\" op\n", "", Lane::kCompute, 4, 0.25, 1.0}},
};

class TraceFile : public testing::Test {
 protected:
  ~TraceFile() override { std::filesystem::remove(path_); }
  std::string error_of(const std::string& text) {
    write_file_atomically(path_, text);
    try {
      read_trace(path_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::filesystem::path path_ = testing::TempDir() + "concord_trace.json";
};

TEST_F(TraceFile, IsReadAsItWasWritten) {
  write_trace(path_, kJob);
  const JobTrace read = read_trace(path_);
  ASSERT_EQ(read.size(), kJob.size());
  for (std::size_t r = 0; r < read.size(); ++r) {
    ASSERT_EQ(read[r].size(), kJob[r].size());
    for (std::size_t i = 0; i < read[r].size(); ++i) {
      EXPECT_EQ(read[r][i].name.text(), kJob[r][i].name.text());
      EXPECT_EQ(read[r][i].about.text(), kJob[r][i].about.text());
      EXPECT_EQ(read[r][i].lane, kJob[r][i].lane);
      EXPECT_EQ(read[r][i].step, kJob[r][i].step);
      EXPECT_NEAR(read[r][i].begin, kJob[r][i].begin, 1e-9);
      EXPECT_NEAR(read[r][i].end, kJob[r][i].end, 1e-9);
    }
  }
}

TEST_F(TraceFile, AnotherFileIsRefused) {
  for (const char* text :
       {"", "[]", "{}", "{\"traceEvents\": 3}", "{\"traceEvents\": [{}]}",
        "{\"traceEvents\": [{\"ph\": \"X\", \"pid\": 99999999, \"ts\": 0, \"dur\": 1}]}",
        "{\"traceEvents\": [{\"ph\": \"X\", \"pid\": 0, \"ts\": 0, \"dur\": -1}]}",
        "{\"traceEvents\": [{\"ph\": \"X\", \"pid\": -1, \"ts\": 0, \"dur\": 1}]}"}) {
    EXPECT_NE(error_of(text).find(path_.string()), std::string::npos) << text;
  }
}

TEST(TraceSummary, CommunicationIsHiddenWhereTheRankComputes) {
  EXPECT_DOUBLE_EQ(seconds_of(kJob), 1.0);
  const TraceSummary summary = summarize(kJob[0], 1.0);
  EXPECT_DOUBLE_EQ(summary.compute, 0.25);
  EXPECT_DOUBLE_EQ(summary.communication, 0.3);
  EXPECT_NEAR(summary.exposed, 0.3 - 0.1 - 0.05, 1e-12);
  EXPECT_NEAR(summary.data_wait, 0.1, 1e-12);
}

}  // namespace
}  // namespace concord::formats
