// Activations as FP8 with a scale for every 128 columns of a row, by DeepSeek-V3's rule: the scale
// is the group's largest magnitude, at least 1e-4, over 448; codes are values times its reciprocal
// times 448, as torch has it.
//
// A warp takes a group, a lane four of its columns. Grid-stride over groups: any grid of whole
// warps does. Division rounds as IEEE says, so that codes are the CPU's twin's to the bit.
#include "e4m3.cuh"
#include "half.cuh"

constexpr int GROUP = 128;
constexpr int LANES = 32;
constexpr int COLUMNS_A_LANE = GROUP / LANES;

template <class T>
__device__ __forceinline__ void quantise(const T* __restrict__ values, uint8_t* __restrict__ codes,
                                         float* __restrict__ scales, int rows, int columns) {
  const int groups_a_row = (columns + GROUP - 1) / GROUP;
  const long long groups = static_cast<long long>(rows) * groups_a_row;
  const int lane = threadIdx.x % LANES;
  const int warps = blockDim.x / LANES;
  const long long stride = static_cast<long long>(gridDim.x) * warps;
  for (long long group = static_cast<long long>(blockIdx.x) * warps + threadIdx.x / LANES;
       group < groups; group += stride) {
    const long long first = group / groups_a_row * columns;
    const int column = static_cast<int>(group % groups_a_row) * GROUP + lane * COLUMNS_A_LANE;
    float mine[COLUMNS_A_LANE];
    float largest = 1e-4f;
    for (int at = 0; at < COLUMNS_A_LANE; at++) {
      mine[at] = column + at < columns ? widen(values[first + column + at]) : 0.0f;
      largest = fmaxf(largest, fabsf(mine[at]));
    }
    for (int distance = LANES / 2; distance > 0; distance /= 2)
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, distance));
    const float factor = __fmul_rn(__fdiv_rn(1.0f, largest), 448.0f);
    for (int at = 0; at < COLUMNS_A_LANE; at++)
      if (column + at < columns)
        codes[first + column + at] = e4m3_from_float(__fmul_rn(mine[at], factor));
    if (lane == 0) scales[group] = __fdiv_rn(largest, 448.0f);
  }
}

extern "C" __global__ void llmd_fp8_quantise_bf16(const __nv_bfloat16* values, uint8_t* codes,
                                                  float* scales, int rows, int columns) {
  quantise(values, codes, scales, rows, columns);
}

extern "C" __global__ void llmd_fp8_quantise_f16(const __half* values, uint8_t* codes,
                                                 float* scales, int rows, int columns) {
  quantise(values, codes, scales, rows, columns);
}

extern "C" __global__ void llmd_fp8_quantise_f32(const float* values, uint8_t* codes,
                                                 float* scales, int rows, int columns) {
  quantise(values, codes, scales, rows, columns);
}
