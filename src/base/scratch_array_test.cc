#include "base/scratch_array.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/process_memory.h"
#include "support/test_support.h"

namespace nibble {
namespace {

TEST(ScratchArray, KeepsValuesInMemoryAndInAFile) {
  const test::TempDir temp;
  constexpr std::int64_t count = 8 << 20;
  for (const bool file : {false, true}) {
    ScratchArray array(count, file ? temp.path() : std::filesystem::path());
    EXPECT_EQ(array.data()[count - 1], 0);
    EXPECT_TRUE(std::filesystem::is_empty(temp.path())) << "the file has no name";
    for (std::int64_t i = 0; i < count; ++i) array.data()[i] = static_cast<float>(i % 1000);
    const std::int64_t held = resident_bytes();
    array.release(0, count);
    if (file) {
      EXPECT_LT(resident_bytes(), held - count * 3) << "most pages are gone";
    }
    ScratchArray moved = std::move(array);
    bool same = true;
    for (std::int64_t i = 0; i < count; ++i) same = same && moved.data()[i] == static_cast<float>(i % 1000);
    EXPECT_TRUE(same);
  }
  EXPECT_THROW(ScratchArray(1, temp / "nothing"), Error);
}

}  // namespace
}  // namespace nibble
