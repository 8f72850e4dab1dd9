#include "support/sha256.h"

#include "base/sha256.h"

namespace nibble::test {

std::string sha256(std::span<const std::byte> bytes) { return sha256_hex(bytes); }

}  // namespace nibble::test
