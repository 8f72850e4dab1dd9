// A large array of floats that lies in memory, or in a file without a name when memory is short.
#pragma once
#include <cstdint>
#include <filesystem>
#include <vector>

namespace nibble {

class ScratchArray {
 public:
  ScratchArray() = default;
  /// `count` zeros. With a folder they lie in a file there, which nobody sees and which goes with the object or the
  /// process. Throws Error(runtime) with both numbers when the disk has no room for it.
  explicit ScratchArray(std::int64_t count, const std::filesystem::path& folder = {});
  ~ScratchArray();
  ScratchArray(const ScratchArray&) = delete;
  ScratchArray& operator=(const ScratchArray&) = delete;
  ScratchArray(ScratchArray&& other) noexcept;
  ScratchArray& operator=(ScratchArray&& other) noexcept;

  float* data() { return data_; }
  const float* data() const { return data_; }
  std::int64_t size() const { return count_; }
  /// Says that [begin, begin + count) is not needed soon: what lies in a file leaves this process's memory. Values
  /// stay.
  void release(std::int64_t begin, std::int64_t count);

 private:
  std::vector<float> memory_;
  float* data_ = nullptr;
  std::int64_t count_ = 0;
  bool mapped_ = false;
};

}  // namespace nibble
