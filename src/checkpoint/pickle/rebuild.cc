#include "checkpoint/pickle/rebuild.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/error.h"

namespace nibble {
namespace {

constexpr std::size_t kMaxNodes = std::size_t{1} << 22;
constexpr std::size_t kMaxTensors = std::size_t{1} << 20;
constexpr std::size_t kMaxRank = 64;

using Args = std::span<const PickleValue>;
using Call = PickleValue (*)(Pickle&, Args, const std::string& where);

[[noreturn]] void malformed(const std::string& where, const char* what) {
  throw bad_input(where, ": pickle: malformed ", what);
}

PickleValue opaque(Pickle&, Args, const std::string&) {
  PickleValue value;
  value.kind = PickleKind::opaque;
  return value;
}

/// restore_type_tag(value, type), torch.Size(tuple), _rebuild_parameter(tensor, requires_grad, hooks): the first.
PickleValue first(Pickle&, Args args, const std::string& where) {
  if (args.empty()) malformed(where, "call without arguments");
  return args[0];
}

PickleValue make_dict(Pickle& pickle, Args args, const std::string& where) {
  if (!args.empty() && args[0].kind == PickleKind::dict) return args[0];
  if (!args.empty()) malformed(where, "OrderedDict: only an empty one or a dict is understood");
  return new_node(pickle, PickleKind::dict, {}, where);
}

PickleValue make_set(Pickle& pickle, Args args, const std::string& where) {
  if (!args.empty() && (args[0].kind == PickleKind::list || args[0].kind == PickleKind::tuple)) return args[0];
  return new_node(pickle, PickleKind::list, {}, where);
}

Shape integers(const Pickle& pickle, const PickleValue& tuple, const std::string& where) {
  if (tuple.kind != PickleKind::tuple && tuple.kind != PickleKind::list) malformed(where, "tensor: size or stride");
  Shape out;
  if (pickle.items(tuple).size() > kMaxRank) malformed(where, "tensor: too many dimensions");
  for (const PickleValue& item : pickle.items(tuple)) {
    if (item.kind != PickleKind::integer || item.integer < 0) malformed(where, "tensor: size or stride");
    out.push_back(item.integer);
  }
  return out;
}

/// Whether the farthest element (offset + sum of (size - 1) * stride) lies inside `count` elements.
bool fits(const TorchTensor& tensor, std::int64_t count) {
  std::int64_t last = tensor.offset;
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    if (tensor.shape[i] == 0) return tensor.offset <= count;
  }
  for (std::size_t i = 0; i < tensor.shape.size(); ++i) {
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &reach) ||
        __builtin_add_overflow(last, reach, &last)) {
      return false;
    }
  }
  return last < count;
}

/// (storage, offset, size, stride, ...) with the element type `dtype`.
PickleValue make_tensor(Pickle& pickle, Args args, DType dtype, const std::string& where) {
  const TorchStorage& storage = pickle.storages[args[0].node];
  if (args[1].kind != PickleKind::integer || args[1].integer < 0) malformed(where, "tensor: storage offset");
  TorchTensor tensor{args[0].node, args[1].integer, integers(pickle, args[2], where), integers(pickle, args[3], where),
                     dtype};
  const auto count = storage.bytes / static_cast<std::int64_t>(size_of(dtype));
  count_of(tensor.shape, size_of(dtype));
  if (tensor.shape.size() != tensor.strides.size() || !fits(tensor, count)) {
    throw bad_input(where, ": pickle: a tensor of shape ", to_string(tensor.shape), " at offset ", tensor.offset,
                    " reaches outside its storage of ", count, " elements");
  }
  if (pickle.tensors.size() >= kMaxTensors) malformed(where, "file: too many tensors");
  PickleValue value;
  value.kind = PickleKind::tensor;
  value.node = static_cast<std::uint32_t>(pickle.tensors.size());
  pickle.tensors.push_back(std::move(tensor));
  return value;
}

PickleValue rebuild_v2(Pickle& pickle, Args args, const std::string& where) {
  if (args.size() < 4 || args[0].kind != PickleKind::storage) malformed(where, "_rebuild_tensor call");
  const auto dtype = pickle.storages[args[0].node].dtype;
  if (!dtype) malformed(where, "_rebuild_tensor call: an untyped storage");
  return make_tensor(pickle, args, *dtype, where);
}

/// (storage, offset, size, stride, requires_grad, hooks, dtype[, metadata])
PickleValue rebuild_v3(Pickle& pickle, Args args, const std::string& where) {
  if (args.size() < 7 || args[0].kind != PickleKind::storage || args[6].kind != PickleKind::dtype) {
    malformed(where, "_rebuild_tensor_v3 call");
  }
  return make_tensor(pickle, args, static_cast<DType>(args[6].integer), where);
}

/// (function, type, args, state): a tensor with Python attributes.
PickleValue rebuild_from_type(Pickle& pickle, Args args, const std::string& where) {
  if (args.size() < 3 || args[1].kind != PickleKind::global) malformed(where, "_rebuild_from_type_v2 call");
  const std::string& type = pickle.globals[args[1].node];
  if (type != "torch.Tensor" && type != "torch.nn.parameter.Parameter" && type != "torch.nn.parameter.Buffer") {
    throw bad_input(where, ": refuses to build a tensor of class ", printable(type));
  }
  // The inner function must be one of the plain ones: no recursion.
  if (args[0].kind != PickleKind::global || pickle.globals[args[0].node].find("_rebuild_tensor") == std::string::npos) {
    malformed(where, "_rebuild_from_type_v2 call");
  }
  return call_global(pickle, args[0], args[2], where);
}

PickleValue not_callable(Pickle&, Args, const std::string& where) { malformed(where, "call of a class"); }

constexpr std::array<std::pair<std::string_view, Call>, 27> kCalls{{
    {"torch._utils._rebuild_tensor_v2", rebuild_v2},
    {"torch._utils._rebuild_tensor", rebuild_v2},
    {"torch._utils._rebuild_tensor_v3", rebuild_v3},
    {"torch._utils._rebuild_parameter", first},
    {"torch._utils._rebuild_parameter_with_state", first},
    {"torch._tensor._rebuild_from_type_v2", rebuild_from_type},
    {"torch.Tensor", not_callable},
    {"torch.nn.parameter.Parameter", not_callable},
    {"torch.nn.parameter.Buffer", not_callable},
    {"torch.storage.UntypedStorage", not_callable},
    {"collections.OrderedDict", make_dict},
    {"collections.Counter", make_dict},
    {"torch.Size", first},
    {"torch.device", opaque},
    {"torch.serialization._get_layout", opaque},
    {"_codecs.encode", opaque},
    {"builtins.complex", opaque},
    {"builtins.bytearray", opaque},
    {"builtins.bytes", opaque},
    {"builtins.set", make_set},
    {"builtins.frozenset", make_set},
    {"torch.jit._pickle.restore_type_tag", first},
    {"torch.jit._pickle.build_intlist", first},
    {"torch.jit._pickle.build_doublelist", first},
    {"torch.jit._pickle.build_boollist", first},
    {"torch.jit._pickle.build_tensorlist", first},
    {"torch.jit._pickle.build_tensor_from_id", opaque},
}};

constexpr std::array<std::pair<std::string_view, DType>, 10> kStorages{{{"DoubleStorage", DType::f64},
                                                                        {"FloatStorage", DType::f32},
                                                                        {"HalfStorage", DType::f16},
                                                                        {"BFloat16Storage", DType::bf16},
                                                                        {"LongStorage", DType::i64},
                                                                        {"IntStorage", DType::i32},
                                                                        {"ShortStorage", DType::i16},
                                                                        {"CharStorage", DType::i8},
                                                                        {"ByteStorage", DType::u8},
                                                                        {"BoolStorage", DType::boolean}}};

/// "torch.FloatStorage" or "torch.cuda.FloatStorage" -> f32.
std::optional<DType> storage_dtype(std::string_view global) {
  for (const std::string_view prefix : {"torch.cuda.", "torch."}) {
    if (global.substr(0, prefix.size()) != prefix) continue;
    for (const auto& [name, dtype] : kStorages) {
      if (global.substr(prefix.size()) == name) return dtype;
    }
  }
  return std::nullopt;
}

bool is_script_class(std::string_view global) { return global.substr(0, 10) == "__torch__."; }

}  // namespace

PickleValue new_node(Pickle& pickle, PickleKind kind, std::vector<PickleValue> items, const std::string& where) {
  if (pickle.nodes.size() >= kMaxNodes) throw bad_input(where, ": pickle: more than ", kMaxNodes, " containers");
  PickleValue value;
  value.kind = kind;
  value.node = static_cast<std::uint32_t>(pickle.nodes.size());
  pickle.nodes.push_back(std::move(items));
  return value;
}

PickleValue resolve_global(Pickle& pickle, std::string_view module, std::string_view name, const std::string& where) {
  if (module == "__builtin__") module = "builtins";
  std::string full = std::string(module) + "." + std::string(name);
  PickleValue value;
  const auto dtype = module == "torch" ? dtype_from_name(full) : std::nullopt;
  if (dtype && torch_name(*dtype) == name) {
    value.kind = PickleKind::dtype;
    value.integer = static_cast<std::int64_t>(*dtype);
    return value;
  }
  const bool known = std::any_of(kCalls.begin(), kCalls.end(), [&](const auto& call) { return call.first == full; });
  if (!known && !storage_dtype(full) && !is_script_class(full)) {
    throw bad_input(where, ": refuses to load ", printable(full), ", which is not among the names that hold weights");
  }
  if (pickle.globals.size() >= kMaxTensors) malformed(where, "file: too many globals");
  value.kind = PickleKind::global;
  value.node = static_cast<std::uint32_t>(pickle.globals.size());
  pickle.globals.push_back(std::move(full));
  return value;
}

PickleValue call_global(Pickle& pickle, const PickleValue& callee, const PickleValue& args, const std::string& where) {
  if (callee.kind != PickleKind::global || args.kind != PickleKind::tuple) malformed(where, "call");
  const std::string& name = pickle.globals[callee.node];
  for (const auto& [known, call] : kCalls) {
    if (known == name) return call(pickle, pickle.items(args), where);
  }
  throw bad_input(where, ": refuses to call ", printable(name));
}

PickleValue new_object(Pickle& pickle, const PickleValue& type, const std::string& where) {
  if (type.kind != PickleKind::global) malformed(where, "object");
  const std::string& name = pickle.globals[type.node];
  if (is_script_class(name)) return new_node(pickle, PickleKind::record, {}, where);
  if (name == "collections.OrderedDict") return new_node(pickle, PickleKind::dict, {}, where);
  throw bad_input(where, ": refuses to make an object of ", printable(name));
}

PickleValue load_storage(Pickle& pickle, const PickleValue& id, const std::string& where) {
  if (id.kind != PickleKind::tuple) malformed(where, "persistent id");
  const auto parts = pickle.items(id);
  const bool shaped = parts.size() >= 5 && parts[0].kind == PickleKind::text && pickle.text(parts[0]) == "storage" &&
                      parts[1].kind == PickleKind::global && parts[2].kind == PickleKind::text &&
                      parts[4].kind == PickleKind::integer && parts[4].integer >= 0;
  if (!shaped) malformed(where, "persistent id");
  if (parts.size() > 5 && parts[5].kind != PickleKind::none)
    malformed(where, "persistent id: storage views are too old");
  const std::string& type = pickle.globals[parts[1].node];
  const auto dtype = storage_dtype(type);
  if (!dtype && type != "torch.storage.UntypedStorage") malformed(where, "persistent id: not a storage class");
  const std::size_t size = dtype ? size_of(*dtype) : 1;
  if (pickle.storages.size() >= kMaxTensors) malformed(where, "file: too many storages");
  const std::int64_t bytes = count_of({parts[4].integer}, size) * static_cast<std::int64_t>(size);
  PickleValue value;
  value.kind = PickleKind::storage;
  value.node = static_cast<std::uint32_t>(pickle.storages.size());
  pickle.storages.push_back({pickle.text(parts[2]), dtype, bytes});
  return value;
}

}  // namespace nibble
