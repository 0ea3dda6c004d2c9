// KV blocks of many regions (a layer's keys, its values) into one piece of memory, so that one
// copy takes them over a link: [block][region][block_bytes].
//
// Grid: (regions, blocks). A region is its base address; block b of it lies at b * stride_bytes.
#include "bytes.cuh"

extern "C" __global__ void llmd_block_gather(const unsigned long long* __restrict__ bases,
                                             const int* __restrict__ block_ids,
                                             unsigned char* __restrict__ staging,
                                             long long block_bytes, long long stride_bytes) {
  const unsigned char* region = reinterpret_cast<const unsigned char*>(bases[blockIdx.x]);
  const long long piece = static_cast<long long>(blockIdx.y) * gridDim.x + blockIdx.x;
  copy_bytes(staging + piece * block_bytes,
             region + static_cast<long long>(block_ids[blockIdx.y]) * stride_bytes, block_bytes);
}
