// Handles for other processes: the process and its descriptor, which /proc opens again.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "driver.h"

// 64 bytes, as the real ones.
struct IpcHandle {
  char magic[8];
  uint64_t bytes;
  int32_t process;
  int32_t file;
  int32_t device;
  char rest[36];
};
static_assert(sizeof(IpcHandle) == 64);

static constexpr char MAGIC[8] = {'f', 'a', 'k', 'e', 'C', 'U', 'D', 'A'};

static void fill(IpcHandle* handle, int file, uint64_t bytes, int device) {
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle->magic, MAGIC, sizeof MAGIC);
  handle->bytes = bytes;
  handle->process = getpid();
  handle->file = file;
  handle->device = device;
}

// Opens what another process' handle names; or a status below 0.
static int open_file(const IpcHandle& handle) {
  if (std::memcmp(handle.magic, MAGIC, sizeof MAGIC) != 0) return -INVALID_VALUE;
  // As the real one: the process that made a handle cannot open it.
  if (handle.process == getpid()) return -INVALID_CONTEXT;
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", handle.process, handle.file);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  return file < 0 ? -INVALID_HANDLE : file;
}

CUDA_API cuIpcGetMemHandle(IpcHandle* handle, Address address) {
  ENTER
  auto above = driver.allocations.upper_bound(address);
  if (above == driver.allocations.begin() || !reach(address, 1)) return INVALID_VALUE;
  const Allocation& allocation = (--above)->second;
  if (allocation.is_imported) return INVALID_VALUE;
  fill(handle, allocation.file, allocation.bytes, allocation.device);
  return SUCCESS;
}

CUDA_API cuIpcOpenMemHandle_v2(Address* address, IpcHandle handle, unsigned) {
  ENTER
  if (current_device < 0) return INVALID_CONTEXT;
  if (handle.device != current_device && !driver.has_peers) return PEER_ACCESS_UNSUPPORTED;
  const int file = open_file(handle);
  if (file < 0) return -file;
  return map_allocation(file, handle.bytes, handle.device, true, address);
}

CUDA_API cuIpcCloseMemHandle(Address address) {
  ENTER
  const auto found = driver.allocations.find(address);
  if (found == driver.allocations.end() || !found->second.is_imported) return INVALID_VALUE;
  const int status = drain_all(lock);
  unmap_allocation(address);
  return status;
}

CUDA_API cuIpcGetEventHandle(IpcHandle* handle, void* event) {
  ENTER
  const Event* of = static_cast<const Event*>(event);
  if (!of->is_interprocess) return INVALID_HANDLE;
  fill(handle, of->file, 4096, 0);
  return SUCCESS;
}

CUDA_API cuIpcOpenEventHandle(void** event, IpcHandle handle) {
  ENTER
  const int file = open_file(handle);
  if (file < 0) return -file;
  void* counts = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (counts == MAP_FAILED) return OUT_OF_MEMORY;
  *event = new Event{static_cast<EventCounts*>(counts), file, true};
  return SUCCESS;
}
