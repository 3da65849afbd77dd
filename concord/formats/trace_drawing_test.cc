#include "concord/formats/trace_drawing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "concord/base/error.h"

namespace concord::formats {
namespace {

using testing::HasSubstr;
using testing::Not;

int count(const std::string& text, std::string_view what) {
  int found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

TraceEvent half(const char* name, const char* about, std::int64_t step, double begin, double end) {
  return {name, about, Lane::kPipeline, step, begin, end};
}

// Two ranks, of which the second waits for a second, in step 2; step 3 is not whole.
const JobTrace kPipeline = {
    {half("forward", "microbatch 0, chunk 0", 2, 0, 1),
     half("backward", "microbatch 0, chunk 0", 2, 2, 3),
     {"matmul", "fc1", Lane::kCompute, 2, 0, 1},
     half("forward", "microbatch 0, chunk 0", 3, 4, 5)},
    {half("forward", "microbatch 0, chunk 1", 2, 1, 1.5),
     half("weights", "microbatch 0, chunk 1", 2, 1.5, 2)},
};

TEST(TraceDrawing, APipelineIsDrawnByItsHalves) {
  const TraceDrawing drawing = draw_trace(kPipeline);
  EXPECT_EQ(drawing.step, 2);
  EXPECT_DOUBLE_EQ(drawing.seconds, 3);
  ASSERT_TRUE(drawing.bubble.has_value());
  EXPECT_DOUBLE_EQ(*drawing.bubble, (2 * 3 - 3.0) / 3);
  EXPECT_THAT(drawing.svg, HasSubstr("step 2, 2 ranks, 3 s, bubble 1 (idle over busy time)"));
  EXPECT_THAT(drawing.svg, HasSubstr("forward of microbatch 0, chunk 1: 500 ms from 1 s on"));
  EXPECT_THAT(drawing.svg, HasSubstr("gradients of weights"));
  EXPECT_EQ(count(drawing.svg, "<title>"), 4);
  EXPECT_EQ(count(drawing.svg, ">0</text>"), 4 + 1);  // on the axis, too
  EXPECT_THAT(drawing.svg, Not(HasSubstr("matmul")));
  EXPECT_EQ(draw_trace(kPipeline, 3).seconds, 1);
}

TEST(TraceDrawing, OtherStepsAreDrawnByTheirOps) {
  const TraceDrawing drawing = draw_trace({{{"matmul", "fc1", Lane::kCompute, 1, 0, 0.2},
                                            {"sum", "fc1", Lane::kCommunication, 1, 0.1, 0.4}},
                                           {{"data wait", "", Lane::kData, 1, 0, 0.1}}});
  EXPECT_FALSE(drawing.bubble.has_value());
  for (const char* part : {"matmul of fc1: 200 ms", "sum of fc1: 300 ms", "data wait: 100 ms"}) {
    EXPECT_THAT(drawing.svg, HasSubstr(part));
  }
}

TEST(TraceDrawing, WhatATraceSaysIsNoMarkup) {
  const TraceDrawing drawing = draw_trace({{half("</title><script>&", "\"\x80 \x01 é", 1, 0, 1)}});
  EXPECT_THAT(drawing.svg, HasSubstr("&lt;/title&gt;&lt;script&gt;&amp; of &quot;? ? ??: 1 s"));
  EXPECT_THAT(drawing.svg, Not(HasSubstr("<script>")));
}

TEST(TraceDrawing, AHugeTraceMakesNoHugePicture) {
  JobTrace trace(1);
  for (int i = 0; i < 200000; ++i) {
    trace[0].push_back(half("forward", "microbatch 999999999, chunk 9999", 1, i, i + 5e8));
  }
  EXPECT_LT(draw_trace(trace).svg.size(), std::size_t{1} << 20);
}

TEST(TraceDrawing, WhatCannotBeDrawnIsRefused) {
  const auto error_of = [](const JobTrace& trace, std::optional<std::int64_t> step = {}) {
    try {
      draw_trace(trace, step);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(error_of({}), HasSubstr("no events"));
  EXPECT_THAT(error_of(kPipeline, 7), HasSubstr("nothing of step 7: expected one like 2"));
  EXPECT_THAT(error_of(JobTrace(1000)), HasSubstr("1000 ranks: expected at most 256"));
  EXPECT_THAT(error_of({{half("forward", "", 1, -1e308, 1e308)}}), HasSubstr("times from"));
}

}  // namespace
}  // namespace concord::formats
