#include "base/arena.h"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace nibble {

void Arena::Free::operator()(void* memory) const { std::free(memory); }

void* Arena::allocate(std::size_t bytes) {
  bytes = std::max<std::size_t>(64, (bytes + 63) / 64 * 64);
  while (block_ < blocks_.size() && used_ + bytes > blocks_[block_].size) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const std::size_t size = std::max(bytes, block_bytes_);
    void* memory = std::aligned_alloc(64, size);
    if (memory == nullptr) throw std::bad_alloc();
    blocks_.push_back({std::unique_ptr<void, Free>(memory), size});
    used_ = 0;
  }
  void* result = static_cast<std::byte*>(blocks_[block_].memory.get()) + used_;
  used_ += bytes;
  return result;
}

std::size_t Arena::reserved() const {
  std::size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

}  // namespace nibble
