// Modules and kernels: code of any kind is taken, what runs is the kernel of that name for the CPU.
#include <dlfcn.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

struct dim3 {
  unsigned x, y, z;
};
#include "../cuda_host/kernel_table.h"

using Find = const cuda_host_kernel* (*)(const char*);

// A module is the library.
CUDA_API cuModuleLoadData(void** module, const void*) {
  ENTER
  if (current_device < 0) return INVALID_CONTEXT;
  const char* library = std::getenv("FAKE_CUDA_KERNELS");
  *module = library ? dlopen(library, RTLD_NOW) : nullptr;
  if (!*module) std::fprintf(stderr, "fake CUDA: FAKE_CUDA_KERNELS names no library\n");
  return *module ? SUCCESS : INVALID_IMAGE;
}

CUDA_API cuModuleUnload(void* module) {
  ENTER
  return dlclose(module) == 0 ? SUCCESS : INVALID_HANDLE;
}

CUDA_API cuModuleGetFunction(void** function, void* module, const char* name) {
  ENTER
  const Find find = reinterpret_cast<Find>(dlsym(module, "cuda_host_find"));
  const cuda_host_kernel* kernel = find ? find(name) : nullptr;
  *function = const_cast<cuda_host_kernel*>(kernel);
  return kernel ? SUCCESS : NOT_FOUND;
}

static void protect(int protection) {
  if (!driver.is_guarded) return;
  for (auto& [address, allocation] : driver.allocations)
    mprotect(reinterpret_cast<void*>(address), allocation.bytes, protection);
}

CUDA_API cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned,
                        void* handle, void** arguments, void**) {
  ENTER
  const cuda_host_kernel* kernel = static_cast<const cuda_host_kernel*>(function);
  Stream* stream = stream_of(handle);
  const dim3 grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
  const uint64_t threads = uint64_t{block_x} * block_y * block_z;
  if (!kernel || !stream || threads == 0 || threads > 1024) return INVALID_VALUE;
  if (grid_x == 0 || grid_y == 0 || grid_z == 0) return INVALID_VALUE;
  // Arguments are read at the launch: their places are the caller's again after it.
  auto bytes = std::make_shared<std::vector<uint64_t>>(kernel->parameters);
  for (size_t at = 0; at < kernel->parameters; at++)
    std::memcpy(&(*bytes)[at], arguments[at], kernel->parameter_bytes[at]);
  stream->queue.push_back([=] {
    std::vector<void*> places;
    for (uint64_t& place : *bytes) places.push_back(&place);
    protect(PROT_READ | PROT_WRITE);
    if (!kernel->run(places.data(), grid, block)) stream->failure = LAUNCH_FAILED;
    protect(PROT_NONE);
    return true;
  });
  return SUCCESS;
}
