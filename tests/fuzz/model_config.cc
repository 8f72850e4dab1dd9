// config.json of any content gives a ModelConfig within its bounds or one error line.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/error.h"
#include "models/model_config.h"
#include "nn/rope.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const nibble::Json json = nibble::Json::parse({reinterpret_cast<const char*>(data), size}, "config.json");
    const nibble::models::ModelConfig c = nibble::models::parse_model_config(json, "config.json");
    nibble::check(c.head_dim > 0 && c.num_heads % c.num_kv_heads == 0, "heads");
    nibble::check(c.sliding_window.size() == static_cast<std::size_t>(c.num_layers), "layers");
    nibble::check(c.context_length >= c.max_positions, "context");
    if (c.head_dim <= 4096 && c.rope.max_positions > 0) {
      const nibble::nn::Rope rope(c.rope, c.head_dim);
      std::vector<float> cos(static_cast<std::size_t>(rope.rotary_dim() / 2)), sin(cos.size());
      rope.table(c.context_length, 1, c.context_length + 1, cos.data(), sin.data());
    }
  } catch (const nibble::Error& error) {
    // A failed check is a bug; anything else is an answer.
    if (error.kind() == nibble::ErrorKind::internal) __builtin_trap();
  }
  return 0;
}
