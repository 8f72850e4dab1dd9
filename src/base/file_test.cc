#include "base/file.h"

#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstring>

#include "base/error.h"
#include "base/sha256.h"
#include "support/test_support.h"

namespace nibble {
namespace {
namespace fs = std::filesystem;

TEST(File, MapsAndReadsRegularFilesOnly) {
  const test::TempDir dir;
  test::write_text(dir / "file", "content");
  const auto mapped = MappedFile::open(dir / "file");
  ASSERT_EQ(mapped->bytes().size(), 7U);
  EXPECT_EQ(std::memcmp(mapped->bytes().data(), "content", 7), 0);
  EXPECT_EQ(read_file(dir / "file"), "content");
  EXPECT_EQ(read_file(dir / "file", 7), "content");
  EXPECT_THROW(read_file(dir / "file", 6), Error);
  test::write_text(dir / "empty", "");
  EXPECT_TRUE(MappedFile::open(dir / "empty")->bytes().empty());
  ASSERT_EQ(::mkfifo((dir / "fifo").c_str(), 0600), 0);
  for (const fs::path& bad : {dir / "fifo", dir.path(), dir / "missing", fs::path("/dev/zero")}) {
    EXPECT_THROW(MappedFile::open(bad), Error) << bad;
    EXPECT_THROW(read_file(bad), Error) << bad;
  }
  fs::remove(dir / "file");
  EXPECT_EQ(std::memcmp(mapped->bytes().data(), "content", 7), 0) << "a mapping outlives the name";
}

TEST(File, WritesWholeOrNotAtAll) {
  const test::TempDir dir;
  write_file_atomically(dir / "a", "one");
  write_file_atomically(dir / "a", "two");
  EXPECT_EQ(test::read_text(dir / "a"), "two");
  EXPECT_FALSE(fs::exists(dir / "a.partial"));
  fs::create_directory(dir / "taken");
  test::write_text(dir / "taken/inside", "");
  EXPECT_THROW(write_file_atomically(dir / "taken", "x"), Error);
  EXPECT_FALSE(fs::exists(dir / "taken.partial"));
  EXPECT_THROW(write_file_atomically(dir / "no/folder", "x"), Error);
}

TEST(File, Sha256OfTheStandardsExamples) {
  const auto hash = [](const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); };
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Error, PrintableTextIsOneLine) {
  EXPECT_EQ(printable("a\nb\x7f\xff\x01"), "a\\x0ab\\x7f\\xff\\x01");
  EXPECT_EQ(printable("\xc3\xa9"), "\xc3\xa9");
  EXPECT_EQ(printable(std::string(500, 'a'), 10), "aaaaaaaaaa...");
  EXPECT_EQ(Error(ErrorKind::bad_input, "").exit_code(), 2);
  EXPECT_EQ(Error(ErrorKind::runtime, "").exit_code(), 1);
}

}  // namespace
}  // namespace nibble
