// Reads a pickle as inert data: the plain containers and scalars, and the few callables by which PyTorch stores tensors
// (torch._utils._rebuild_tensor_v2 and its kin, storages by persistent id). Nothing is imported or executed; every
// other global is refused by name. Values refer to nodes by number, so cycles and shared parts cost nothing.
#pragma once
#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "tensor/view.h"

namespace nibble {

enum class PickleKind : std::uint8_t {
  none,
  boolean,
  integer,
  real,
  text,    ///< str or bytes
  opaque,  ///< something harmless that nobody needs: a huge integer, a device, a layout
  global,  ///< `node`: position in Pickle::globals
  dtype,   ///< torch.float32 ...: `integer` is the DType
  list,    ///< list or set; `node` in Pickle::nodes
  tuple,
  dict,     ///< items are key, value, key, value, ...
  record,   ///< an object of a TorchScript class: attributes as in dict
  storage,  ///< `node` in Pickle::storages
  tensor,   ///< `node` in Pickle::tensors
};

/// 16 bytes; copies are cheap.
struct PickleValue {
  PickleKind kind = PickleKind::none;
  std::uint32_t length = 0;  ///< of a text
  union {
    std::int64_t integer = 0;
    double real;
    std::uint32_t node;
    const char* text;  ///< points into the pickle
  };
};

struct TorchStorage {
  std::string_view key;        ///< names the zip entry data/<key>
  std::optional<DType> dtype;  ///< none: untyped bytes
  std::int64_t bytes = 0;
};

struct TorchTensor {
  std::uint32_t storage = 0;
  std::int64_t offset = 0;  ///< in elements
  Shape shape, strides;     ///< in elements; equally long, all >= 0, products checked
  DType dtype = DType::f32;
};

struct Pickle {
  PickleValue root;
  std::vector<std::vector<PickleValue>> nodes;
  std::vector<std::string> globals;  ///< "module.name"
  std::vector<TorchStorage> storages;
  std::vector<TorchTensor> tensors;
  std::size_t size = 0;  ///< bytes read, up to and with STOP

  std::string_view text(const PickleValue& value) const { return {value.text, value.length}; }
  std::span<const PickleValue> items(const PickleValue& value) const { return nodes[value.node]; }
};

/// Runs the pickle at the beginning of `bytes`, which must outlive the result (texts point into it). Throws
/// Error(bad_input) on a refused global ("<where>: refuses to load os.system"), a broken instruction, or more than
/// 2^20 stack entries, 2^22 containers, 2^25 items.
Pickle read_pickle(std::span<const std::byte> bytes, const std::string& where);

}  // namespace nibble
