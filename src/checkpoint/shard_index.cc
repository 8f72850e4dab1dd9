#include "checkpoint/shard_index.h"

#include <algorithm>
#include <map>
#include <system_error>

#include "base/error.h"
#include "base/json.h"
#include "checkpoint/side_files.h"

namespace nibble {
namespace fs = std::filesystem;
namespace {

bool plain_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= 255 &&
         name.find_first_of(std::string("/\\\0", 3)) == std::string::npos;
}

void check_shard(const fs::path& index, const fs::path& folder, const std::string& name) {
  const auto fail = [&](const std::string& reason) {
    throw bad_input(index.string(), ": shard \"", printable(name), "\" ", reason);
  };
  if (!plain_file_name(name)) fail("is not a plain file name");
  std::error_code error;
  const fs::path path = folder / name;
  if (fs::symlink_status(path, error).type() == fs::file_type::not_found) fail("is missing");
  const fs::file_status status = fs::status(path, error);
  if (error) fail("cannot be followed: " + error.message());
  if (!fs::is_regular_file(status)) fail("is not a regular file");
  if (!lies_within(path, folder)) fail("is a link that leads out of the folder");
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
  for (auto& [shard, position] : number) {
    check_shard(file, file.parent_path(), shard);
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
