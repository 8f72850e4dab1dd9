// One matrix of a model under orthogonal changes of basis of its inputs and outputs, computed in f64 and rounded once.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "run/rotation/random_hadamard.h"
#include "tensor/view.h"

namespace nibble {

/// The bases that a model's hidden values are turned to.
struct Bases {
  RandomHadamard residual;            ///< R, of the residual stream
  std::vector<RandomHadamard> heads;  ///< S, of the values of head h of layer l: [l * kv_heads + h]
};

/// A matrix W [rows, cols] (a bias is one column) inside a tensor, and what becomes of it: T W diag(norm) U', where T
/// and U are the new bases of its outputs and inputs.
struct RotatedMatrix {
  enum class Side : std::uint8_t {
    none,
    residual,
    heads,  ///< each head of head_dim values by itself
  };
  std::int64_t offset = 0;  ///< elements of the tensor before it
  std::int64_t rows = 0, cols = 0;
  std::shared_ptr<const std::vector<float>> norm{};  ///< [cols], or null: ones. Not together with `inputs` heads
  Side inputs = Side::none, outputs = Side::none;
  std::int64_t first_head = 0;      ///< of the layer, in Bases::heads
  std::int64_t heads_per_base = 1;  ///< heads that follow each other and share a base: query heads of one value head
  std::int64_t head_dim = 0;
};

enum class Rotated : std::uint8_t {
  fine,
  not_finite,  ///< a value of the source is NaN or infinite
  too_large,   ///< a value does not fit the type it is stored in
};

/// Writes the new values over those of `matrix` in an array like `from` (any float type) at `to`, in `to_type`. The
/// same bytes for any number of threads.
Rotated rotate_matrix(const RotatedMatrix& matrix, const View& from, DType to_type, std::byte* to, const Bases& bases,
                      ThreadPool& pool);

}  // namespace nibble
