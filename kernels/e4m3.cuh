// FP8 with four bits of exponent and three of mantissa (OCP's E4M3, torch's float8_e4m3fn).
//
// In integer operations, as the CPU's twin has it: sm_80 has no instruction for it, and what runs
// everywhere was tested everywhere. Quantising waits for memory, not for these.
#pragma once

#include <cstdint>

// The nearest number, ties to even; 448 for all that is larger, infinity too.
__device__ __forceinline__ uint8_t e4m3_from_float(float value) {
  const uint32_t SUBNORMAL = 141u << 23;
  const uint32_t raw = __float_as_uint(value);
  const uint32_t sign = raw & 0x80000000u;
  const uint32_t bits = raw ^ sign;
  const uint32_t subnormal =
      __float_as_uint(__fadd_rn(__uint_as_float(bits), __uint_as_float(SUBNORMAL))) - SUBNORMAL;
  const uint32_t normal = (bits - (120u << 23) + 0x7ffffu + (bits >> 20 & 1u)) >> 20;
  const uint32_t nearest = bits < 121u << 23 ? subnormal : normal;
  const uint32_t magnitude = bits > 0x7f800000u ? 0x7fu : min(nearest, 0x7eu);
  return static_cast<uint8_t>(magnitude | sign >> 24);
}

// The number that a code stands for, exactly.
__device__ __forceinline__ float float_from_e4m3(uint8_t code) {
  const uint32_t magnitude = code & 0x7fu;
  const float scaled = __fmul_rn(__uint_as_float(magnitude << 20), __uint_as_float(247u << 23));
  const uint32_t bits = magnitude == 0x7fu ? 0x7fc00000u : __float_as_uint(scaled);
  return __uint_as_float(bits | static_cast<uint32_t>(code & 0x80u) << 24);
}
