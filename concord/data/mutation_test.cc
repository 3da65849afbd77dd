#include <gtest/gtest.h>

#include <algorithm>

#include "concord/base/error.h"
#include "concord/base/philox.h"
#include "concord/data/test_data.h"

namespace concord::data {
namespace {

constexpr int kMutations = 3000;

// One to four random edits: a byte changed, a range repeated, a range removed, the end cut off.
std::string mutated(std::string bytes, const RandomStream& stream) {
  const std::uint32_t edits = 1 + uniform_below(stream.bits(0), 4);
  for (std::uint32_t edit = 1; edit <= edits && !bytes.empty(); ++edit) {
    const PhiloxBlock draw = stream.block(edit);
    // Headers come first, so places near the start are chosen more often.
    const auto size = static_cast<std::uint32_t>(bytes.size());
    const std::uint32_t reach = draw[3] % 2 == 0 ? std::min(size, 64u) : size;
    const std::size_t place = uniform_below(draw[0], reach);
    const std::size_t length = 1 + uniform_below(draw[1], 16);
    switch (draw[2] % 5) {
      case 0:
        bytes[place] = static_cast<char>(draw[1]);
        break;
      case 1:
        bytes[place] = draw[1] % 2 == 0 ? '\0' : '\xff';
        break;
      case 2:
        bytes.insert(place, bytes.substr(place, length));
        break;
      case 3:
        bytes.erase(place, length);
        break;
      case 4:
        bytes.resize(place);
        break;
    }
  }
  return bytes;
}

void expect_harmless_mutants(const ParserTarget& target) {
  for (const std::string& seed : target.seeds) {
    int refused = 0;
    for (int i = 0; i < kMutations; ++i) {
      const RandomStream stream{7, static_cast<std::uint32_t>(i), 0};
      const std::string bytes = mutated(seed, stream);
      try {
        target.parse(bytes);
      } catch (const Error& error) {
        ++refused;
        EXPECT_TRUE(std::string_view(error.what()).starts_with("input")) << error.what();
      }
    }
    EXPECT_GT(refused, kMutations / 10) << target.name;
  }
}

TEST(MutatedInput, IdxParsesOrIsRefused) { expect_harmless_mutants(idx_target()); }
TEST(MutatedInput, CifarParsesOrIsRefused) { expect_harmless_mutants(cifar_target()); }
TEST(MutatedInput, TaskParsesOrIsRefused) { expect_harmless_mutants(task_target()); }
TEST(MutatedInput, CsvParsesOrIsRefused) { expect_harmless_mutants(csv_target()); }
TEST(MutatedInput, NpyParsesOrIsRefused) { expect_harmless_mutants(npy_target()); }
TEST(MutatedInput, TokenizerParsesOrIsRefused) { expect_harmless_mutants(tokenizer_target()); }
TEST(MutatedInput, ImageDecodesOrIsRefused) { expect_harmless_mutants(image_target()); }

}  // namespace
}  // namespace concord::data
