// The way back of block_gather: [block][region][block_bytes] into the blocks of many regions.
//
// Grid: (regions, blocks). No block may be named twice: which of its copies stays is not defined.
#include "bytes.cuh"

extern "C" __global__ void llmd_block_scatter(const unsigned long long* __restrict__ bases,
                                              const int* __restrict__ block_ids,
                                              const unsigned char* __restrict__ staging,
                                              long long block_bytes, long long stride_bytes) {
  unsigned char* region = reinterpret_cast<unsigned char*>(bases[blockIdx.x]);
  const long long piece = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
  copy_bytes(region + static_cast<long long>(block_ids[blockIdx.y]) * stride_bytes,
             staging + piece * block_bytes, block_bytes);
}
