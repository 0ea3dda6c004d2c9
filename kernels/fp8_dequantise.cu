// Codes and the scales of their groups of 128 columns to numbers again, each rounded once.
//
// Grid-stride over elements: any grid does.
#include "e4m3.cuh"
#include "half.cuh"

constexpr int GROUP = 128;

template <class T>
__device__ __forceinline__ void dequantise(const uint8_t* __restrict__ codes,
                                           const float* __restrict__ scales,
                                           T* __restrict__ values, int rows, int columns) {
  const int groups_a_row = (columns + GROUP - 1) / GROUP;
  const long long elements = static_cast<long long>(rows) * columns;
  const long long stride = static_cast<long long>(gridDim.x) * blockDim.x;
  for (long long at = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; at < elements;
       at += stride) {
    const float scale = scales[at / columns * groups_a_row + at % columns / GROUP];
    values[at] = narrow<T>(__fmul_rn(float_from_e4m3(codes[at]), scale));
  }
}

extern "C" __global__ void llmd_fp8_dequantise_bf16(const uint8_t* codes, const float* scales,
                                                    __nv_bfloat16* values, int rows, int columns) {
  dequantise(codes, scales, values, rows, columns);
}

extern "C" __global__ void llmd_fp8_dequantise_f16(const uint8_t* codes, const float* scales,
                                                   __half* values, int rows, int columns) {
  dequantise(codes, scales, values, rows, columns);
}

extern "C" __global__ void llmd_fp8_dequantise_f32(const uint8_t* codes, const float* scales,
                                                   float* values, int rows, int columns) {
  dequantise(codes, scales, values, rows, columns);
}
