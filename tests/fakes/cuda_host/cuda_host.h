// CUDA C++ as far as the kernels in kernels/ use it, for a compiler of C++ on the host.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "fibers.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __shared__ static __attribute__((section("cuda_shared")))
#define threadIdx (cuda_host::running->index)
#define blockIdx (cuda_host::block_index)
#define blockDim (cuda_host::block_dim)
#define gridDim (cuda_host::grid_dim)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline void __syncthreads() { cuda_host::wait(cuda_host::State::AT_BLOCK_BARRIER); }

inline unsigned cuda_host_lane() { return cuda_host::running->linear % cuda_host::WARP; }

// Every use here names all lanes, which is all that fibers know.
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
  return cuda_host::exchange(value, cuda_host_lane() ^ mask);
}
template <class T> T __shfl_up_sync(unsigned, T value, unsigned distance) {
  return cuda_host::exchange(value, cuda_host_lane() - distance);
}

inline int atomicAdd(int* at, int more) {
  const int before = *at;
  *at += more;
  return before;
}

// Compiled without contraction: each rounds once, as its name says.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fmaf(a, b, c); }
inline uint32_t __float_as_uint(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
using std::min;
