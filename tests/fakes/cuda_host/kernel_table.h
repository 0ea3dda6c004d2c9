// What the library of kernels for the host exports. Include it after fibers.h or a twin of dim3.
#pragma once

#include <cstddef>
#include <cstdint>

struct cuda_host_kernel {
  const char* name;
  size_t parameters;
  size_t parameter_bytes[8];
  // Runs the grid to its end; false where its threads cannot end.
  bool (*run)(void** arguments, dim3 grid, dim3 block);
};

// The kernel of this name, or null.
extern "C" const cuda_host_kernel* cuda_host_find(const char* name);

// Seeds the order in which blocks and their threads run.
extern "C" void cuda_host_order(uint64_t seed);
