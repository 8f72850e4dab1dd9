// model.safetensors.index.json of any bytes, in a folder with two shards, a folder, a FIFO and a link out.
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "checkpoint/checkpoint.h"
#include "fuzz/fuzz_file.h"

namespace {
namespace fs = std::filesystem;

void save(const fs::path& file, const std::string& tensor) {
  const std::string header = "{\"" + tensor + "\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";
  std::ofstream out(file, std::ios::binary);
  out << static_cast<char>(header.size()) << std::string(7, '\0') << header << 'x';
}

fs::path make_folder() {
  std::string pattern = (fs::temp_directory_path() / "nibble-fuzz-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) __builtin_trap();
  const fs::path folder(pattern);
  save(folder / "1", "a");
  save(folder / "2", "b");
  save(folder.string() + ".out", "c");
  fs::create_directory(folder / "d");
  fs::create_symlink(folder.string() + ".out", folder / "l");
  fs::create_symlink("s", folder / "s");
  if (::mkfifo((folder / "f").c_str(), 0600) != 0) __builtin_trap();
  return folder;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const fs::path folder = make_folder();
  std::ofstream(folder / "model.safetensors.index.json", std::ios::binary)
      .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  return nibble::fuzz::expect_answer([&] {
    const auto checkpoint = nibble::Checkpoint::open(folder.string());
    for (const nibble::TensorEntry& tensor : checkpoint->tensors()) {
      nibble::check(tensor.name == "a" || tensor.name == "b", "only shards of the folder are read");
    }
  });
}
