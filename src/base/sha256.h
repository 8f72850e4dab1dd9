// SHA-256 (FIPS 180-4) of memory, by OpenSSL's libcrypto.
#pragma once
#include <cstddef>
#include <span>
#include <string>

namespace nibble {

/// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace nibble
