// What the experts made of tokens, back to the tokens, summed by weight.
//
// Grid: tokens. Each sum is of f32, from 0, in the order of choices, each step a fused
// multiply-add, rounded once: the bits of the CPU's twin, and no atomic addition.
#include "half.cuh"

template <class T>
__device__ __forceinline__ void combine(const T* __restrict__ rows,
                                        const int* __restrict__ row_of_slot,
                                        const float* __restrict__ weights, T* __restrict__ tokens,
                                        int top_k, int columns) {
  using Vector = Pack<T>;
  const long long token = blockIdx.x;
  const int* my_rows = row_of_slot + token * top_k;
  const float* my_weights = weights + token * top_k;
  // Rows begin at multiples of 16 bytes only where their length is one.
  const bool is_aligned = columns % Vector::SIZE == 0 &&
                          ((reinterpret_cast<unsigned long long>(rows) |
                            reinterpret_cast<unsigned long long>(tokens)) & 15) == 0;
  const int vectors = is_aligned ? columns / Vector::SIZE : 0;
  for (int at = threadIdx.x; at < vectors; at += blockDim.x) {
    float sums[Vector::SIZE] = {};
    for (int choice = 0; choice < top_k; choice++) {
      if (my_rows[choice] < 0) continue;
      const Vector vector = reinterpret_cast<const Vector*>(
          rows + static_cast<long long>(my_rows[choice]) * columns)[at];
      for (int lane = 0; lane < Vector::SIZE; lane++)
        sums[lane] = __fmaf_rn(widen(vector.values[lane]), my_weights[choice], sums[lane]);
    }
    Vector out;
    for (int lane = 0; lane < Vector::SIZE; lane++) out.values[lane] = narrow<T>(sums[lane]);
    reinterpret_cast<Vector*>(tokens + token * columns)[at] = out;
  }
  for (int column = vectors * Vector::SIZE + threadIdx.x; column < columns; column += blockDim.x) {
    float sum = 0.0f;
    for (int choice = 0; choice < top_k; choice++)
      if (my_rows[choice] >= 0)
        sum = __fmaf_rn(widen(rows[static_cast<long long>(my_rows[choice]) * columns + column]),
                        my_weights[choice], sum);
    tokens[token * columns + column] = narrow<T>(sum);
  }
}

extern "C" __global__ void llmd_combine_bf16(const __nv_bfloat16* rows, const int* row_of_slot,
                                             const float* weights, __nv_bfloat16* tokens,
                                             int top_k, int columns) {
  combine(rows, row_of_slot, weights, tokens, top_k, columns);
}

extern "C" __global__ void llmd_combine_f16(const __half* rows, const int* row_of_slot,
                                            const float* weights, __half* tokens, int top_k,
                                            int columns) {
  combine(rows, row_of_slot, weights, tokens, top_k, columns);
}

extern "C" __global__ void llmd_combine_f32(const float* rows, const int* row_of_slot,
                                            const float* weights, float* tokens, int top_k,
                                            int columns) {
  combine(rows, row_of_slot, weights, tokens, top_k, columns);
}
