// The instructions of Python's pickle format, protocols 0 to 5 (CPython's Lib/pickletools.py), decoded with every
// length checked. Used by the machine that reads PyTorch files and by the disassembler; neither executes anything.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nibble {

/// The argument that follows an opcode's byte.
enum class PickleArg : std::uint8_t {
  none,
  u1,         ///< unsigned, 1 byte
  u2,         ///< 2 bytes, little-endian
  i4,         ///< signed 4 bytes
  u4,         ///< unsigned 4 bytes
  u8,         ///< unsigned 8 bytes
  f8,         ///< IEEE double, big-endian
  line,       ///< text up to a newline
  two_lines,  ///< module and name
  bytes1,     ///< 1-byte length, then so many bytes
  bytes4,     ///< 4-byte length
  bytes8,     ///< 8-byte length
};

struct PickleOp {
  unsigned char code;
  PickleArg arg;
  std::string_view name;  ///< as pickletools spells it
};

/// One decoded instruction; texts point into the pickle.
struct PickleStep {
  const PickleOp* op = nullptr;
  std::size_t offset = 0;
  std::int64_t integer = 0;  ///< u1, u2, i4, u4
  double real = 0;           ///< f8
  std::string_view text;     ///< line, the first of two lines, counted bytes
  std::string_view text2;    ///< the second of two lines
};

/// Steps through a pickle.
class PickleScanner {
 public:
  /// `where` (a file name) begins every message.
  PickleScanner(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  /// The next instruction. Throws Error(bad_input) on an unknown opcode or at the end of the bytes.
  PickleStep next();
  /// Bytes read so far.
  std::size_t offset() const { return at_; }
  const std::string& where() const { return where_; }

 private:
  std::string_view take(std::uint64_t count);
  std::string_view take_line();
  std::uint64_t take_unsigned(std::size_t bytes);
  std::span<const std::byte> bytes_;
  std::string where_;
  std::size_t at_ = 0;
};

/// Bytes up to and with STOP; all of them when the pickle is broken.
std::size_t pickle_length(std::span<const std::byte> bytes);

/// The pickle as text, one instruction per line ("    2: X BINUNICODE 'weight'"), at most `max_lines`; what is broken
/// ends it with a line that says so.
std::string disassemble_pickle(std::span<const std::byte> bytes, std::size_t max_lines = 100'000);

}  // namespace nibble
