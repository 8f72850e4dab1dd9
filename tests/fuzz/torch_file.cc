// A PyTorch file of any bytes gives readable tensors or one error line.
#include "checkpoint/torch_file.h"

#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return nibble::fuzz::expect_answer([&] {
    const auto file = nibble::fuzz::file_of(data, size);
    const nibble::TorchContent content = nibble::read_torch_file(file);
    unsigned sum = 0;
    for (const nibble::TensorEntry& tensor : content.tensors) {
      for (const std::byte byte : tensor.view.bytes()) sum += std::to_integer<unsigned>(byte);
    }
    nibble::check(sum != 0xffffffffU, "all bytes are readable");
  });
}
