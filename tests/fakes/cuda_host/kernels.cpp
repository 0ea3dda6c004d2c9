// Every kernel of kernels/ for the host, by name: a library that tests and the fake driver load.
//
// What kernels share is included before them, so that each file can be in a namespace of its own.
#include "cuda_host.h"
//
#include "bytes.cuh"
#include "e4m3.cuh"
#include "half.cuh"

#include <tuple>

#include "kernel_table.h"

namespace block_gather {
#include "block_gather.cu"
}
namespace block_scatter {
#include "block_scatter.cu"
}
namespace combine_rows {
#include "combine.cu"
}
namespace dispatch_layout {
#include "dispatch_layout.cu"
}
namespace fp8_dequantise {
#include "fp8_dequantise.cu"
}
namespace fp8_quantise {
#include "fp8_quantise.cu"
}
namespace permute_tokens {
#include "permute.cu"
}

namespace {

template <class... Args> struct Call {
  void (*kernel)(Args...);
  std::tuple<Args...> arguments;
  static void run(void* call) {
    std::apply(static_cast<Call*>(call)->kernel, static_cast<Call*>(call)->arguments);
  }
};

template <class T> T read(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

template <class... Args, size_t... Is>
bool launch(void (*kernel)(Args...), void** arguments, dim3 grid, dim3 block,
            std::index_sequence<Is...>) {
  Call<Args...> call{kernel, {read<Args>(arguments[Is])...}};
  return cuda_host::run_grid(grid, block, Call<Args...>::run, &call);
}

template <auto KERNEL> struct Entry;
template <class... Args, void (*KERNEL)(Args...)> struct Entry<KERNEL> {
  static bool run(void** arguments, dim3 grid, dim3 block) {
    return launch(KERNEL, arguments, grid, block, std::index_sequence_for<Args...>{});
  }
  static constexpr cuda_host_kernel describe(const char* name) {
    return {name, sizeof...(Args), {sizeof(Args)...}, run};
  }
};

#define KERNEL(NAMESPACE, NAME) Entry<&NAMESPACE::NAME>::describe(#NAME)
const cuda_host_kernel KERNELS[] = {
    KERNEL(block_gather, llmd_block_gather),
    KERNEL(block_scatter, llmd_block_scatter),
    KERNEL(combine_rows, llmd_combine_bf16),
    KERNEL(combine_rows, llmd_combine_f16),
    KERNEL(combine_rows, llmd_combine_f32),
    KERNEL(dispatch_layout, llmd_dispatch_count),
    KERNEL(dispatch_layout, llmd_dispatch_rank),
    KERNEL(dispatch_layout, llmd_dispatch_scan),
    KERNEL(fp8_dequantise, llmd_fp8_dequantise_bf16),
    KERNEL(fp8_dequantise, llmd_fp8_dequantise_f16),
    KERNEL(fp8_dequantise, llmd_fp8_dequantise_f32),
    KERNEL(fp8_quantise, llmd_fp8_quantise_bf16),
    KERNEL(fp8_quantise, llmd_fp8_quantise_f16),
    KERNEL(fp8_quantise, llmd_fp8_quantise_f32),
    KERNEL(permute_tokens, llmd_permute),
};

}  // namespace

extern "C" const cuda_host_kernel* cuda_host_find(const char* name) {
  for (const cuda_host_kernel& kernel : KERNELS)
    if (std::strcmp(kernel.name, name) == 0) return &kernel;
  return nullptr;
}

extern "C" void cuda_host_order(uint64_t seed) { cuda_host::order_of_fibers.seed(seed); }
