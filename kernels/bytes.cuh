// Copies of bytes by all threads of a block.
#pragma once

#include <cstdint>

// Copies `length` bytes, 16 at a time where both ends and the length allow it.
__device__ __forceinline__ void copy_bytes(unsigned char* __restrict__ to,
                                           const unsigned char* __restrict__ from,
                                           long long length) {
  const uintptr_t misaligned =
      reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(from) | length;
  if ((misaligned & 15) == 0) {
    uint4* to16 = reinterpret_cast<uint4*>(to);
    const uint4* from16 = reinterpret_cast<const uint4*>(from);
    for (long long at = threadIdx.x; at < length / 16; at += blockDim.x) to16[at] = from16[at];
  } else {
    for (long long at = threadIdx.x; at < length; at += blockDim.x) to[at] = from[at];
  }
}
