// How much memory this process holds, as the system counts it.
#pragma once
#include <cstdint>

namespace nibble {

/// Bytes of the resident set now; 0 where the system does not say.
std::int64_t resident_bytes();

/// The most it ever was.
std::int64_t peak_resident_bytes();

}  // namespace nibble
