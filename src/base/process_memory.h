// How much memory this process holds, as the system counts it.
#pragma once
#include <cstdint>

namespace nibble {

/// Bytes of the resident set now; 0 where the system does not say.
std::int64_t resident_bytes();

/// The most it ever was.
std::int64_t peak_resident_bytes();

/// Memory of this machine; 0 where the system does not say.
std::int64_t physical_bytes();

/// From now on blocks of 4 MiB and more go back to the system when they are freed. Allocators otherwise keep blocks of
/// up to 32 MiB once some were used, and a computation on many large matrices then holds more than it uses.
void return_large_blocks();

}  // namespace nibble
