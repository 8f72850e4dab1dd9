// A pickle of any bytes is read as inert data or refused, and can always be shown.
#include "checkpoint/pickle/machine.h"
#include "checkpoint/pickle/opcodes.h"
#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes(reinterpret_cast<const std::byte*>(data), size);
  nibble::check(!nibble::disassemble_pickle(bytes, 1000).empty() || size == 0, "shown");
  return nibble::fuzz::expect_answer([&] {
    const nibble::Pickle pickle = nibble::read_pickle(bytes, "fuzz");
    nibble::check(pickle.size <= size, "length");
    for (const nibble::TorchTensor& tensor : pickle.tensors) {
      nibble::check(tensor.storage < pickle.storages.size(), "storage");
      nibble::check(tensor.shape.size() == tensor.strides.size(), "strides");
    }
  });
}
