#include "checkpoint/pickle/machine.h"

#include <utility>

#include "base/error.h"
#include "checkpoint/pickle/opcodes.h"
#include "checkpoint/pickle/rebuild.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxStack = std::size_t{1} << 20;
constexpr std::size_t kMaxItems = std::size_t{1} << 25;

/// The stack machine. Instructions come in groups; each group's function says whether the instruction was its own.
class Machine {
 public:
  Machine(std::span<const std::byte> bytes, std::string where) : scanner_(bytes, std::move(where)) {}

  Pickle run() {
    while (true) {
      const PickleStep step = scanner_.next();
      const unsigned char code = step.op->code;
      if (code == '.') break;
      if (scalar(code, step) || memo(code, step) || container(code) || object(code, step)) continue;
      throw bad_input(scanner_.where(), ": pickle: instruction ", step.op->name, " at byte ", step.offset,
                      " is not allowed");
    }
    out_.root = pop();
    out_.size = scanner_.offset();
    return std::move(out_);
  }

 private:
  [[noreturn]] void fail(const char* what) const {
    throw bad_input(scanner_.where(), ": pickle: ", what, " before byte ", scanner_.offset());
  }

  void push(const PickleValue& value) {
    if (stack_.size() >= kMaxStack) fail("stack too deep");
    stack_.push_back(value);
  }

  void push_kind(PickleKind kind, std::int64_t integer = 0) {
    PickleValue value;
    value.kind = kind;
    value.integer = integer;
    push(value);
  }

  void push_text(std::string_view text) {
    PickleValue value;
    value.kind = PickleKind::text;
    value.length = static_cast<std::uint32_t>(text.size());  // a pickle is smaller than 4 GB, see read_pickle
    value.text = text.data();
    push(value);
  }

  /// Values below the last mark are out of reach.
  PickleValue pop() {
    if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back())) fail("stack is empty");
    const PickleValue value = stack_.back();
    stack_.pop_back();
    return value;
  }

  const PickleValue& top() const {
    if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back())) fail("stack is empty");
    return stack_.back();
  }

  std::vector<PickleValue> pop_to_mark() {
    if (marks_.empty()) fail("no mark");
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleValue> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  std::vector<PickleValue> pop_count(std::size_t count) {
    std::vector<PickleValue> items(count);
    for (std::size_t i = count; i-- > 0;) items[i] = pop();
    return items;
  }

  void make(PickleKind kind, std::vector<PickleValue> items) {
    if (kind == PickleKind::dict && items.size() % 2 != 0) fail("dict with a key but no value");
    count_items(items.size());
    items.shrink_to_fit();
    push(new_node(out_, kind, std::move(items), scanner_.where()));
  }

  void count_items(std::size_t more) {
    items_ += more;
    if (items_ > kMaxItems) fail("too many items");
  }

  void extend(PickleKind kind, const std::vector<PickleValue>& items) {
    const PickleValue target = top();
    const bool fits = target.kind == kind || (target.kind == PickleKind::record && kind == PickleKind::dict);
    if (!fits || (kind == PickleKind::dict && items.size() % 2 != 0)) fail("items for something that takes none");
    count_items(items.size());
    auto& node = out_.nodes[target.node];
    node.insert(node.end(), items.begin(), items.end());
  }

  /// Little-endian two's complement of any length.
  void push_long(std::string_view bytes) {
    if (bytes.size() > 8) return push_kind(PickleKind::opaque);
    std::uint64_t value = 0;
    for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
    if (!bytes.empty() && bytes.size() < 8 && (bytes.back() & 0x80) != 0)
      value |= ~std::uint64_t{0} << bytes.size() * 8;
    push_kind(PickleKind::integer, static_cast<std::int64_t>(value));
  }

  bool scalar(unsigned char code, const PickleStep& step) {
    switch (code) {
      case 'N': push_kind(PickleKind::none); return true;
      case 0x88: push_kind(PickleKind::boolean, 1); return true;
      case 0x89: push_kind(PickleKind::boolean, 0); return true;
      case 'J':
      case 'K':
      case 'M': push_kind(PickleKind::integer, step.integer); return true;
      case 0x8a:
      case 0x8b: push_long(step.text); return true;
      case 'G':
        push_kind(PickleKind::real);
        stack_.back().real = step.real;
        return true;
      case 'T':
      case 'U':
      case 'B':
      case 'C':
      case 0x8e:
      case 'X':
      case 0x8c:
      case 0x8d: push_text(step.text); return true;
      case 0x80:
      case 0x95: return true;  // PROTO, FRAME
      default: return false;
    }
  }

  void put(std::size_t index, const PickleValue& value) {
    if (index > kMaxItems || (index >= memo_.size() && index > 2 * memo_.size() + 1'000)) fail("memo index too large");
    if (index >= memo_.size()) memo_.resize(index + 1);
    memo_[index] = value;
  }

  void get(std::size_t index) {
    if (index >= memo_.size()) fail("memo index that was never stored");
    push(memo_[index]);
  }

  bool memo(unsigned char code, const PickleStep& step) {
    switch (code) {
      case 'q':
      case 'r': put(static_cast<std::size_t>(step.integer), top()); return true;
      case 0x94: put(memo_.size(), top()); return true;
      case 'h':
      case 'j': get(static_cast<std::size_t>(step.integer)); return true;
      case '0': pop(); return true;
      case '1': pop_to_mark(); return true;
      case '2': push(PickleValue(top())); return true;
      case '(':
        if (marks_.size() >= kMaxStack) fail("too many marks");
        marks_.push_back(stack_.size());
        return true;
      default: return false;
    }
  }

  bool container(unsigned char code) {
    switch (code) {
      case ']':
      case 0x8f: make(PickleKind::list, {}); return true;
      case '}': make(PickleKind::dict, {}); return true;
      case ')': make(PickleKind::tuple, {}); return true;
      case 0x85: make(PickleKind::tuple, pop_count(1)); return true;
      case 0x86: make(PickleKind::tuple, pop_count(2)); return true;
      case 0x87: make(PickleKind::tuple, pop_count(3)); return true;
      case 't': make(PickleKind::tuple, pop_to_mark()); return true;
      case 'l':
      case 0x91: make(PickleKind::list, pop_to_mark()); return true;
      case 'd': make(PickleKind::dict, pop_to_mark()); return true;
      case 'a': extend(PickleKind::list, pop_count(1)); return true;
      case 'e':
      case 0x90: extend(PickleKind::list, pop_to_mark()); return true;
      case 's': extend(PickleKind::dict, pop_count(2)); return true;
      case 'u': extend(PickleKind::dict, pop_to_mark()); return true;
      default: return false;
    }
  }

  bool object(unsigned char code, const PickleStep& step) {
    switch (code) {
      case 'c': push(resolve_global(out_, step.text, step.text2, scanner_.where())); return true;
      case 0x93: {
        const auto names = pop_count(2);
        if (names[0].kind != PickleKind::text || names[1].kind != PickleKind::text) fail("global without a name");
        push(resolve_global(out_, out_.text(names[0]), out_.text(names[1]), scanner_.where()));
        return true;
      }
      case 'R': {
        const auto call = pop_count(2);
        push(call_global(out_, call[0], call[1], scanner_.where()));
        return true;
      }
      case 0x81: {
        const auto parts = pop_count(2);
        push(new_object(out_, parts[0], scanner_.where()));
        return true;
      }
      case 'Q': push(load_storage(out_, pop(), scanner_.where())); return true;
      case 'b': build(); return true;
      default: return false;
    }
  }

  /// Attributes: of a TorchScript object they are its parts; those of a dict (OrderedDict's _metadata) say nothing.
  void build() {
    const PickleValue state = pop();
    const PickleValue target = top();
    if (target.kind == PickleKind::dict) return;
    if (target.kind != PickleKind::record || state.kind != PickleKind::dict)
      fail("attributes for something that has none");
    extend(PickleKind::dict, std::vector<PickleValue>(out_.nodes[state.node]));
  }

  PickleScanner scanner_;
  Pickle out_;
  std::vector<PickleValue> stack_, memo_;
  std::vector<std::size_t> marks_;
  std::size_t items_ = 0;
};

}  // namespace

Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where) {
  constexpr std::size_t limit = std::size_t{1} << 28;
  if (bytes.size() > limit) bytes = bytes.first(limit);  // a legacy file goes on with its tensors
  return Machine(bytes, where).run();
}

}  // namespace nibble
