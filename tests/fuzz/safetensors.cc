// A safetensors file of any bytes gives tensors inside the file or one error line.
#include "checkpoint/safetensors.h"

#include "fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  return nibble::fuzz::expect_answer([&] {
    const auto file = nibble::fuzz::file_of(data, size);
    const nibble::SafetensorsContent content = nibble::read_safetensors(*file);
    std::size_t total = 0;
    for (const nibble::TensorEntry& tensor : content.tensors) {
      const auto bytes = tensor.view.bytes();
      nibble::check(bytes.data() >= file->bytes().data(), "begins in the file");
      nibble::check(bytes.data() + bytes.size() <= file->bytes().data() + file->bytes().size(), "ends in the file");
      total += bytes.size();
    }
    nibble::check(total + 8 <= size, "tensors tile the file");
  });
}
