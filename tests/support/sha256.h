// SHA-256 (FIPS 180-4), to compare large arrays with the digests that golden files hold.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace nibble::test {

/// Lower-case hexadecimal digest.
std::string sha256(std::span<const std::byte> bytes);

}  // namespace nibble::test
