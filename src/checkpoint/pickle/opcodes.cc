#include "checkpoint/pickle/opcodes.h"

#include <array>
#include <bit>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::array<PickleOp, 68> kOps{{
    {'I', PickleArg::line, "INT"},
    {'J', PickleArg::i4, "BININT"},
    {'K', PickleArg::u1, "BININT1"},
    {'M', PickleArg::u2, "BININT2"},
    {'L', PickleArg::line, "LONG"},
    {0x8a, PickleArg::bytes1, "LONG1"},
    {0x8b, PickleArg::bytes4, "LONG4"},
    {'S', PickleArg::line, "STRING"},
    {'T', PickleArg::bytes4, "BINSTRING"},
    {'U', PickleArg::bytes1, "SHORT_BINSTRING"},
    {'B', PickleArg::bytes4, "BINBYTES"},
    {'C', PickleArg::bytes1, "SHORT_BINBYTES"},
    {0x8e, PickleArg::bytes8, "BINBYTES8"},
    {0x96, PickleArg::bytes8, "BYTEARRAY8"},
    {0x97, PickleArg::none, "NEXT_BUFFER"},
    {0x98, PickleArg::none, "READONLY_BUFFER"},
    {'N', PickleArg::none, "NONE"},
    {0x88, PickleArg::none, "NEWTRUE"},
    {0x89, PickleArg::none, "NEWFALSE"},
    {'V', PickleArg::line, "UNICODE"},
    {0x8c, PickleArg::bytes1, "SHORT_BINUNICODE"},
    {'X', PickleArg::bytes4, "BINUNICODE"},
    {0x8d, PickleArg::bytes8, "BINUNICODE8"},
    {'F', PickleArg::line, "FLOAT"},
    {'G', PickleArg::f8, "BINFLOAT"},
    {']', PickleArg::none, "EMPTY_LIST"},
    {'a', PickleArg::none, "APPEND"},
    {'e', PickleArg::none, "APPENDS"},
    {'l', PickleArg::none, "LIST"},
    {')', PickleArg::none, "EMPTY_TUPLE"},
    {'t', PickleArg::none, "TUPLE"},
    {0x85, PickleArg::none, "TUPLE1"},
    {0x86, PickleArg::none, "TUPLE2"},
    {0x87, PickleArg::none, "TUPLE3"},
    {'}', PickleArg::none, "EMPTY_DICT"},
    {'d', PickleArg::none, "DICT"},
    {'s', PickleArg::none, "SETITEM"},
    {'u', PickleArg::none, "SETITEMS"},
    {0x8f, PickleArg::none, "EMPTY_SET"},
    {0x90, PickleArg::none, "ADDITEMS"},
    {0x91, PickleArg::none, "FROZENSET"},
    {'0', PickleArg::none, "POP"},
    {'2', PickleArg::none, "DUP"},
    {'(', PickleArg::none, "MARK"},
    {'1', PickleArg::none, "POP_MARK"},
    {'g', PickleArg::line, "GET"},
    {'h', PickleArg::u1, "BINGET"},
    {'j', PickleArg::u4, "LONG_BINGET"},
    {'p', PickleArg::line, "PUT"},
    {'q', PickleArg::u1, "BINPUT"},
    {'r', PickleArg::u4, "LONG_BINPUT"},
    {0x94, PickleArg::none, "MEMOIZE"},
    {0x82, PickleArg::u1, "EXT1"},
    {0x83, PickleArg::u2, "EXT2"},
    {0x84, PickleArg::i4, "EXT4"},
    {'c', PickleArg::two_lines, "GLOBAL"},
    {0x93, PickleArg::none, "STACK_GLOBAL"},
    {'R', PickleArg::none, "REDUCE"},
    {'b', PickleArg::none, "BUILD"},
    {'i', PickleArg::two_lines, "INST"},
    {'o', PickleArg::none, "OBJ"},
    {0x81, PickleArg::none, "NEWOBJ"},
    {0x92, PickleArg::none, "NEWOBJ_EX"},
    {0x80, PickleArg::u1, "PROTO"},
    {'.', PickleArg::none, "STOP"},
    {0x95, PickleArg::u8, "FRAME"},
    {'P', PickleArg::line, "PERSID"},
    {'Q', PickleArg::none, "BINPERSID"},
}};

constexpr std::array<const PickleOp*, 256> make_index() {
  std::array<const PickleOp*, 256> index{};
  for (const PickleOp& op : kOps) index[op.code] = &op;
  return index;
}

constexpr std::array<const PickleOp*, 256> kByCode = make_index();

std::string describe(const PickleStep& step) {
  switch (step.op->arg) {
    case PickleArg::none: return "";
    case PickleArg::u1:
    case PickleArg::u2:
    case PickleArg::i4:
    case PickleArg::u4:
    case PickleArg::u8: return cat(' ', step.integer);
    case PickleArg::f8: return cat(' ', step.real);
    case PickleArg::two_lines: return cat(" '", printable(step.text), ' ', printable(step.text2), '\'');
    default: return cat(" '", printable(step.text), '\'');
  }
}

}  // namespace

std::string_view PickleScanner::take(std::uint64_t count) {
  if (count > bytes_.size() - at_) throw bad_input(where_, ": pickle ends inside an instruction at byte ", at_);
  const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
  at_ += static_cast<std::size_t>(count);
  return {begin, static_cast<std::size_t>(count)};
}

std::string_view PickleScanner::take_line() {
  const std::string_view rest(reinterpret_cast<const char*>(bytes_.data()) + at_, bytes_.size() - at_);
  const std::size_t end = rest.find('\n');
  if (end == std::string_view::npos) throw bad_input(where_, ": pickle ends inside a line at byte ", at_);
  at_ += end + 1;
  return rest.substr(0, end);
}

std::uint64_t PickleScanner::take_unsigned(std::size_t bytes) {
  const std::string_view raw = take(bytes);
  std::uint64_t value = 0;
  std::memcpy(&value, raw.data(), bytes);
  return value;
}

PickleStep PickleScanner::next() {
  PickleStep step;
  step.offset = at_;
  const auto code = static_cast<unsigned char>(take(1)[0]);
  step.op = kByCode[code];
  if (step.op == nullptr) throw bad_input(where_, ": pickle: unknown opcode ", int{code}, " at byte ", step.offset);
  switch (step.op->arg) {
    case PickleArg::none: break;
    case PickleArg::u1: step.integer = static_cast<std::int64_t>(take_unsigned(1)); break;
    case PickleArg::u2: step.integer = static_cast<std::int64_t>(take_unsigned(2)); break;
    case PickleArg::u4: step.integer = static_cast<std::int64_t>(take_unsigned(4)); break;
    case PickleArg::u8: step.integer = static_cast<std::int64_t>(take_unsigned(8)); break;
    case PickleArg::i4: step.integer = static_cast<std::int32_t>(take_unsigned(4)); break;
    case PickleArg::f8: {
      std::uint64_t bits = 0;
      for (const char c : take(8)) bits = bits << 8 | static_cast<unsigned char>(c);
      step.real = std::bit_cast<double>(bits);
      break;
    }
    case PickleArg::line: step.text = take_line(); break;
    case PickleArg::two_lines:
      step.text = take_line();
      step.text2 = take_line();
      break;
    case PickleArg::bytes1: step.text = take(take_unsigned(1)); break;
    case PickleArg::bytes4: step.text = take(take_unsigned(4)); break;
    case PickleArg::bytes8: step.text = take(take_unsigned(8)); break;
  }
  return step;
}

std::size_t pickle_length(std::span<const std::byte> bytes) {
  PickleScanner scanner(bytes, "pickle");
  try {
    while (scanner.next().op->code != '.') continue;
    return scanner.offset();
  } catch (const Error&) {
    return bytes.size();
  }
}

std::string disassemble_pickle(std::span<const std::byte> bytes, std::size_t max_lines) {
  std::string out;
  PickleScanner scanner(bytes, "pickle");
  try {
    for (std::size_t line = 0; line < max_lines; ++line) {
      const PickleStep step = scanner.next();
      char head[64];
      const unsigned char code = step.op->code;
      const bool plain = code > 0x20 && code < 0x7f;
      if (plain) {
        std::snprintf(head, sizeof head, "%8zu: %c    ", step.offset, code);
      } else {
        std::snprintf(head, sizeof head, "%8zu: \\x%02x ", step.offset, code);
      }
      out += head;
      out += step.op->name;
      out += describe(step) + "\n";
      if (code == '.') return out;
    }
    out += "          ... (more instructions follow)\n";
  } catch (const Error& error) {
    out += std::string("          broken: ") + error.what() + "\n";
  }
  return out;
}

}  // namespace nibble
