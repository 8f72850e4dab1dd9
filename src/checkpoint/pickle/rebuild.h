// What the globals of PyTorch's pickles stand for: which names are known, and what "calling" them means for inert data.
#pragma once
#include <string>
#include <string_view>

#include "checkpoint/pickle/machine.h"

namespace nibble {

/// A new container node; `kind` is list, tuple, dict or record. Throws beyond 2^22 of them.
PickleValue new_node(Pickle& pickle, PickleKind kind, std::vector<PickleValue> items, const std::string& where);

/// The value of a GLOBAL instruction; throws Error(bad_input, "<where>: refuses to load <module>.<name>, ...") when it
/// is not on the list.
PickleValue resolve_global(Pickle& pickle, std::string_view module, std::string_view name, const std::string& where);

/// The value of callee(*args): a tensor for the _rebuild functions, a dict for OrderedDict(), ...
PickleValue call_global(Pickle& pickle, const PickleValue& callee, const PickleValue& args, const std::string& where);

/// The object of class `type`: an empty record for TorchScript classes.
PickleValue new_object(Pickle& pickle, const PickleValue& type, const std::string& where);

/// The storage of a persistent id ('storage', torch.FloatStorage, '0', 'cpu', 1024[, None]).
PickleValue load_storage(Pickle& pickle, const PickleValue& id, const std::string& where);

}  // namespace nibble
