// The keys and values of all positions computed so far, in pages: memory grows with the sequences, and sequences that
// begin alike share pages until one of them writes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "base/dtype.h"

namespace nibble::nn {

struct KvShape {
  std::int64_t layers = 0, kv_heads = 0, head_dim = 0;
  DType dtype = DType::f32;     ///< f32, f16 or bf16
  std::int64_t page_rows = 64;  ///< positions per page
  std::int64_t max_pages = 0;   ///< 0: as many as memory holds
};

/// A page holds `page_rows` positions of all layers: for each layer the keys [page_rows, kv_heads, head_dim], then the
/// values.
class KvCache {
 public:
  explicit KvCache(const KvShape& shape);
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvShape& shape() const { return shape_; }

  /// An empty sequence's number.
  std::int64_t open();
  /// A new sequence with the first `rows` (at most all) positions of `sequence`; its pages are shared, not copied.
  std::int64_t fork(std::int64_t sequence, std::int64_t rows);
  void close(std::int64_t sequence);
  bool is_open(std::int64_t sequence) const { return sequences_.count(sequence) != 0; }

  std::int64_t length(std::int64_t sequence) const;
  /// Forgets all positions from `rows` on.
  void truncate(std::int64_t sequence, std::int64_t rows);

  /// Makes room for `rows` positions more; false (and nothing changed) when max_pages does not allow it.
  bool reserve(std::int64_t sequence, std::int64_t rows);
  /// Stores k and v [rows, kv_heads, head_dim] of one layer at the positions first, first + 1, ...; room was reserved.
  void write(std::int64_t sequence, std::int64_t layer, std::int64_t first, std::int64_t rows, const float* k,
             const float* v);
  /// The positions written count as there, once all layers have them.
  void advance(std::int64_t sequence, std::int64_t rows);

  /// First bytes of the pages of one layer, for AttentionSeq.
  std::span<const std::byte* const> k_pages(std::int64_t sequence, std::int64_t layer) const;
  std::span<const std::byte* const> v_pages(std::int64_t sequence, std::int64_t layer) const;

  std::int64_t pages_in_use() const { return in_use_; }
  std::int64_t page_bytes() const { return page_bytes_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  using Memory = std::unique_ptr<std::byte[], Free>;
  struct Page {
    Memory memory;
    KvCache* cache;
    ~Page();
  };
  struct Sequence {
    std::int64_t length = 0;
    std::vector<std::shared_ptr<Page>> pages;
    std::vector<std::vector<const std::byte*>> k, v;  ///< by layer, by page
  };

  std::shared_ptr<Page> new_page();
  void point(Sequence& sequence) const;
  const Sequence& at(std::int64_t sequence) const;
  Sequence& at(std::int64_t sequence);

  KvShape shape_;
  std::int64_t row_bytes_, layer_bytes_, page_bytes_;
  std::int64_t in_use_ = 0;
  std::int64_t next_ = 0;
  std::vector<Memory> free_;
  std::map<std::int64_t, Sequence> sequences_;
};

}  // namespace nibble::nn
