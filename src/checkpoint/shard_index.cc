#include "checkpoint/shard_index.h"

#include <algorithm>
#include <map>
#include <system_error>

#include "base/error.h"
#include "base/json.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

bool plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

/// Whether a file that a link leads to is a blob of a Hugging Face cache: .../models--org--name/blobs/<hash>.
bool is_cache_blob(const fs::path& real) {
  const fs::path blobs = real.parent_path();
  return blobs.filename() == "blobs" && blobs.parent_path().filename().string().substr(0, 8) == "models--";
}

void check_shard(const fs::path& index, const fs::path& folder, const std::string& name) {
  const auto fail = [&](const std::string& reason) {
    throw bad_input(index.string(), ": shard \"", printable(name), "\" ", reason);
  };
  if (!plain_file_name(name)) fail("is not a plain file name");
  std::error_code error;
  const fs::path path = folder / name;
  if (fs::symlink_status(path, error).type() == fs::file_type::not_found) fail("is missing");
  const fs::path real = fs::canonical(path, error);
  if (error) fail("cannot be followed: " + error.message());
  if (real.parent_path() != folder && !is_cache_blob(real)) fail("is a link that leads out of the folder");
  if (!fs::is_regular_file(real, error)) fail("is not a regular file");
}

}  // namespace

ShardIndex read_shard_index(const fs::path& file) {
  const Json json = Json::read(file);
  const Json* map = json.find("weight_map");
  if (map == nullptr || !map->is_object()) throw bad_input(file.string(), ": weight_map is missing or not an object");
  ShardIndex index;
  index.file = file;
  std::map<std::string, std::uint32_t> number;
  for (const auto& [tensor, shard] : map->object("")) {
    number[shard.string(file.string() + ": weight_map: " + printable(tensor))] = 0;
  }
  if (number.empty()) throw bad_input(file.string(), ": weight_map is empty");
  const fs::path folder = fs::canonical(file.parent_path().empty() ? fs::path(".") : file.parent_path());
  for (auto& [shard, position] : number) {
    check_shard(file, folder, shard);
    position = static_cast<std::uint32_t>(index.shards.size());
    index.shards.push_back(shard);
  }
  index.shard_of.reserve(map->object("").size());
  for (const auto& [tensor, shard] : map->object("")) index.shard_of.emplace(tensor, number[shard.string("")]);
  return index;
}

void check_against_index(const ShardIndex& index, const Checkpoint& checkpoint) {
  for (const auto& [name, place] : index.shard_of) {
    const TensorEntry* tensor = checkpoint.find(name);
    if (tensor == nullptr || tensor->file.filename() != index.shards[place]) {
      throw bad_input(index.file.string(), ": tensor \"", printable(name), "\" is not in ",
                      printable(index.shards[place]), ", where weight_map says it is");
    }
  }
}

}  // namespace nibble
