// Tokens to the rows of their experts.
//
// Grid: tokens. A block reads its token once from memory and writes it top_k times. Rows are of any
// type: activations, FP8 codes, scales.
#include "bytes.cuh"

extern "C" __global__ void llmd_permute(const unsigned char* __restrict__ tokens,
                                        const int* __restrict__ row_of_slot,
                                        unsigned char* __restrict__ rows, int top_k,
                                        long long row_bytes) {
  const long long token = blockIdx.x;
  for (int choice = 0; choice < top_k; choice++) {
    const int row = row_of_slot[token * top_k + choice];
    if (row >= 0) copy_bytes(rows + row * row_bytes, tokens + token * row_bytes, row_bytes);
  }
}
