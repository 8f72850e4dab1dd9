#include "nn/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"

namespace nibble::nn {
namespace {

constexpr std::align_val_t kAlignment{64};

}  // namespace

void KvCache::Free::operator()(std::byte* memory) const { ::operator delete[](memory, kAlignment); }

KvCache::Page::~Page() {
  if (!memory) return;
  --cache->in_use_;
  cache->free_.push_back(std::move(memory));
}

KvCache::KvCache(const KvShape& shape)
    : shape_(shape),
      row_bytes_(shape.kv_heads * shape.head_dim * static_cast<std::int64_t>(size_of(shape.dtype))),
      layer_bytes_(row_bytes_ * shape.page_rows),
      page_bytes_(layer_bytes_ * 2 * shape.layers) {
  check(row_bytes_ > 0 && shape.page_rows > 0 && shape.layers > 0, "KvCache: empty shape");
}

std::int64_t KvCache::open() {
  Sequence& made = sequences_[next_];
  made.k.resize(static_cast<std::size_t>(shape_.layers));
  made.v.resize(static_cast<std::size_t>(shape_.layers));
  return next_++;
}

std::int64_t KvCache::fork(std::int64_t sequence, std::int64_t rows) {
  const std::int64_t made = open();
  sequences_[made] = at(sequence);
  truncate(made, std::min(rows, length(sequence)));
  return made;
}

void KvCache::close(std::int64_t sequence) { sequences_.erase(sequence); }

std::int64_t KvCache::length(std::int64_t sequence) const { return at(sequence).length; }

void KvCache::truncate(std::int64_t sequence, std::int64_t rows) {
  Sequence& s = at(sequence);
  s.length = std::clamp<std::int64_t>(rows, 0, s.length);
  s.pages.resize(static_cast<std::size_t>((s.length + shape_.page_rows - 1) / shape_.page_rows));
  point(s);
}

bool KvCache::reserve(std::int64_t sequence, std::int64_t rows) {
  Sequence& s = at(sequence);
  const auto held = static_cast<std::int64_t>(s.pages.size());
  const std::int64_t needed = (s.length + rows + shape_.page_rows - 1) / shape_.page_rows;
  // A page that is partly filled and shared with another sequence is copied before it is written to.
  const auto last = static_cast<std::size_t>(s.length / shape_.page_rows);
  const bool copy = rows > 0 && s.length % shape_.page_rows != 0 && s.pages[last].use_count() > 1;
  const std::int64_t fresh = std::max<std::int64_t>(needed - held, 0) + (copy ? 1 : 0);
  if (shape_.max_pages > 0 && in_use_ + fresh > shape_.max_pages) return false;
  if (fresh == 0) return true;
  if (copy) {
    std::shared_ptr<Page> own = new_page();
    std::memcpy(own->memory.get(), s.pages[last]->memory.get(), static_cast<std::size_t>(page_bytes_));
    s.pages[last] = std::move(own);
  }
  while (static_cast<std::int64_t>(s.pages.size()) < needed) s.pages.push_back(new_page());
  point(s);
  return true;
}

void KvCache::write(std::int64_t sequence, std::int64_t layer, std::int64_t first, std::int64_t rows, const float* k,
                    const float* v) {
  Sequence& s = at(sequence);
  const std::int64_t width = shape_.kv_heads * shape_.head_dim;
  for (std::int64_t row = 0; row < rows;) {
    const std::int64_t position = first + row, in_page = position % shape_.page_rows;
    const std::int64_t count = std::min(rows - row, shape_.page_rows - in_page);
    std::byte* base = s.pages[static_cast<std::size_t>(position / shape_.page_rows)]->memory.get() +
                      layer * 2 * layer_bytes_ + in_page * row_bytes_;
    convert_from_f32(shape_.dtype, k + row * width, base, count * width);
    convert_from_f32(shape_.dtype, v + row * width, base + layer_bytes_, count * width);
    row += count;
  }
}

void KvCache::advance(std::int64_t sequence, std::int64_t rows) { at(sequence).length += rows; }

std::span<const std::byte* const> KvCache::k_pages(std::int64_t sequence, std::int64_t layer) const {
  return at(sequence).k[static_cast<std::size_t>(layer)];
}

std::span<const std::byte* const> KvCache::v_pages(std::int64_t sequence, std::int64_t layer) const {
  return at(sequence).v[static_cast<std::size_t>(layer)];
}

std::shared_ptr<KvCache::Page> KvCache::new_page() {
  Memory memory;
  if (!free_.empty()) {
    memory = std::move(free_.back());
    free_.pop_back();
  } else {
    memory.reset(static_cast<std::byte*>(::operator new[](static_cast<std::size_t>(page_bytes_), kAlignment)));
  }
  std::shared_ptr<Page> page(new Page{std::move(memory), this});
  ++in_use_;
  return page;
}

void KvCache::point(Sequence& sequence) const {
  for (std::int64_t layer = 0; layer < shape_.layers; ++layer) {
    auto& k = sequence.k[static_cast<std::size_t>(layer)];
    auto& v = sequence.v[static_cast<std::size_t>(layer)];
    k.clear();
    v.clear();
    for (const auto& page : sequence.pages) {
      const std::byte* base = page->memory.get() + layer * 2 * layer_bytes_;
      k.push_back(base);
      v.push_back(base + layer_bytes_);
    }
  }
}

const KvCache::Sequence& KvCache::at(std::int64_t sequence) const {
  const auto found = sequences_.find(sequence);
  check(found != sequences_.end(), "KvCache: no such sequence");
  return found->second;
}

KvCache::Sequence& KvCache::at(std::int64_t sequence) {
  return const_cast<Sequence&>(static_cast<const KvCache*>(this)->at(sequence));
}

}  // namespace nibble::nn
