// Which row of the experts' input each (token, choice) gets: a counting sort by expert that keeps
// the order of tokens, in three launches whose blocks exchange nothing but memory.
//
// A chunk of slots is a block's. `llmd_dispatch_count` counts each chunk's choices by expert,
// `llmd_dispatch_scan` makes of the counts where each expert, and in it each chunk, begins, and
// `llmd_dispatch_rank` numbers the choices. Ids are -1 for none. Any other id that is no expert's
// is dropped as -1 is: a kernel cannot refuse it, as the CPU's twin does.

constexpr int CHUNK_SLOTS = 1024;
constexpr int LANES = 32;
// A thread of the scan for each.
constexpr int MAX_EXPERTS = 1024;

// Grid: chunks. Writes chunk_counts[chunk][expert].
extern "C" __global__ void llmd_dispatch_count(const long long* __restrict__ ids, int slots,
                                               int experts, int* __restrict__ chunk_counts) {
  __shared__ int counts[MAX_EXPERTS];
  for (int expert = threadIdx.x; expert < experts; expert += blockDim.x) counts[expert] = 0;
  __syncthreads();
  const int first = blockIdx.x * CHUNK_SLOTS;
  for (int at = threadIdx.x; at < CHUNK_SLOTS && first + at < slots; at += blockDim.x) {
    const long long expert = ids[first + at];
    if (expert >= 0 && expert < experts) atomicAdd(&counts[expert], 1);
  }
  __syncthreads();
  for (int expert = threadIdx.x; expert < experts; expert += blockDim.x)
    chunk_counts[blockIdx.x * experts + expert] = counts[expert];
}

// One block of whole warps, a thread for each expert. Makes of chunk_counts, in place, the first
// row of each chunk within each expert, and writes counts[experts] and offsets[experts + 1].
extern "C" __global__ void llmd_dispatch_scan(int* __restrict__ chunk_counts, int chunks,
                                              int experts, int* __restrict__ counts,
                                              int* __restrict__ offsets) {
  __shared__ int warp_sums[MAX_EXPERTS / LANES];
  const int expert = threadIdx.x, lane = expert % LANES, warp = expert / LANES;
  int count = 0;
  for (int chunk = 0; expert < experts && chunk < chunks; chunk++)
    count += chunk_counts[chunk * experts + expert];
  int inclusive = count;
  for (int distance = 1; distance < LANES; distance *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, inclusive, distance);
    if (lane >= distance) inclusive += below;
  }
  if (lane == LANES - 1) warp_sums[warp] = inclusive;
  __syncthreads();
  int row = inclusive - count;
  for (int lower = 0; lower < warp; lower++) row += warp_sums[lower];
  if (expert >= experts) return;
  counts[expert] = count;
  offsets[expert] = row;
  if (expert == experts - 1) offsets[experts] = row + count;
  for (int chunk = 0; chunk < chunks; chunk++) {
    const int chunk_count = chunk_counts[chunk * experts + expert];
    chunk_counts[chunk * experts + expert] = row;
    row += chunk_count;
  }
}

// Grid: chunks. A thread numbers the choices of its experts, in order; all read the same slot at
// once, which shared memory answers in one go. Writes row_of_slot[slots], -1 where dropped.
extern "C" __global__ void llmd_dispatch_rank(const long long* __restrict__ ids, int slots,
                                              int experts, const int* __restrict__ chunk_begins,
                                              int* __restrict__ row_of_slot) {
  __shared__ int chunk_ids[CHUNK_SLOTS];
  const int first = blockIdx.x * CHUNK_SLOTS;
  const int length = min(CHUNK_SLOTS, slots - first);
  for (int at = threadIdx.x; at < length; at += blockDim.x) {
    const long long expert = ids[first + at];
    const bool is_kept = expert >= 0 && expert < experts;
    chunk_ids[at] = is_kept ? static_cast<int>(expert) : -1;
    if (!is_kept) row_of_slot[first + at] = -1;
  }
  __syncthreads();
  for (int expert = threadIdx.x; expert < experts; expert += blockDim.x) {
    int row = chunk_begins[blockIdx.x * experts + expert];
    for (int at = 0; at < length; at++)
      if (chunk_ids[at] == expert) row_of_slot[first + at] = row++;
  }
}
