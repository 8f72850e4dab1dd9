// Scratch memory for one forward pass: bump allocation, released all at once or back to a mark.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace nibble {

class Arena {
 public:
  /// Memory is taken from the system in blocks of at least `block_bytes` and kept until the arena goes.
  explicit Arena(std::size_t block_bytes = std::size_t{1} << 22) : block_bytes_(block_bytes) {}

  /// `count` uninitialised elements, 64-byte aligned, valid until the enclosing Scope ends.
  template <class T>
  std::span<T> take(std::int64_t count) {
    return {static_cast<T*>(allocate(static_cast<std::size_t>(count) * sizeof(T))), static_cast<std::size_t>(count)};
  }

  /// Gives back on destruction everything that was taken since its construction.
  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), block_(arena.block_), used_(arena.used_) {}
    ~Scope() {
      arena_.block_ = block_;
      arena_.used_ = used_;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Arena& arena_;
    std::size_t block_, used_;
  };

  /// Bytes held from the system.
  std::size_t reserved() const;

 private:
  struct Free {
    void operator()(void* memory) const;
  };
  struct Block {
    std::unique_ptr<void, Free> memory;
    std::size_t size;
  };
  void* allocate(std::size_t bytes);
  std::size_t block_bytes_;
  std::vector<Block> blocks_;
  std::size_t block_ = 0;  ///< block in use
  std::size_t used_ = 0;   ///< bytes used of it
};

}  // namespace nibble
