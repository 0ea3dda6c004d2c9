// Device memory, and copies from and to it.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "driver.h"

char* reach(Address address, size_t bytes) {
  auto above = driver.allocations.upper_bound(address);
  if (above == driver.allocations.begin()) return nullptr;
  auto& [start, allocation] = *--above;
  const size_t offset = address - start;
  if (offset > allocation.bytes || bytes > allocation.bytes - offset) return nullptr;
  return allocation.alias + offset;
}

int map_allocation(int file, size_t bytes, int device, bool is_imported, Address* address) {
  const int as_seen = driver.is_guarded ? PROT_NONE : PROT_READ | PROT_WRITE;
  void* alias = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  void* start = mmap(nullptr, bytes, as_seen, MAP_SHARED, file, 0);
  if (alias == MAP_FAILED || start == MAP_FAILED) return OUT_OF_MEMORY;
  *address = reinterpret_cast<Address>(start);
  driver.allocations[*address] = {bytes, static_cast<char*>(alias), device, file, is_imported};
  return SUCCESS;
}

void unmap_allocation(Address address) {
  const Allocation& allocation = driver.allocations.at(address);
  munmap(reinterpret_cast<void*>(address), allocation.bytes);
  munmap(allocation.alias, allocation.bytes);
  close(allocation.file);
  driver.allocations.erase(address);
}

CUDA_API cuMemAlloc_v2(Address* address, size_t bytes) {
  ENTER
  if (current_device < 0) return INVALID_CONTEXT;
  if (bytes == 0) return INVALID_VALUE;
  const int file = memfd_create("fake device memory", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return OUT_OF_MEMORY;
  return map_allocation(file, bytes, current_device, false, address);
}

CUDA_API cuMemFree_v2(Address address) {
  ENTER
  const auto found = driver.allocations.find(address);
  if (found == driver.allocations.end() || found->second.is_imported) return INVALID_VALUE;
  // As the real one: whatever was asked of it is done first.
  const int status = drain_all(lock);
  unmap_allocation(address);
  return status;
}

CUDA_API cuMemGetAddressRange_v2(Address* start, size_t* bytes, Address address) {
  ENTER
  auto above = driver.allocations.upper_bound(address);
  if (above == driver.allocations.begin() || !reach(address, 1)) return NOT_FOUND;
  --above;
  *start = above->first;
  *bytes = above->second.bytes;
  return SUCCESS;
}

// Host memory is as good pinned as not.
CUDA_API cuMemHostRegister_v2(void*, size_t, unsigned) {
  ENTER
  return SUCCESS;
}
CUDA_API cuMemHostUnregister(void*) {
  ENTER
  return SUCCESS;
}

static int enqueue_copy(Address to, Address from, size_t bytes, Stream* stream) {
  char* target = reach(to, bytes);
  const char* source = reach(from, bytes);
  if (!target) target = reinterpret_cast<char*>(to);
  if (!source) source = reinterpret_cast<const char*>(from);
  if (!stream || !target || !source) return INVALID_VALUE;
  stream->queue.push_back([=] {
    std::memmove(target, source, bytes);
    return true;
  });
  return SUCCESS;
}

CUDA_API cuMemcpyAsync(Address to, Address from, size_t bytes, void* stream) {
  ENTER
  return enqueue_copy(to, from, bytes, stream_of(stream));
}

CUDA_API cuMemcpyBatchAsync_v2(Address* to, Address* from, size_t* bytes, size_t count, void*,
                               size_t*, size_t, void* handle) {
  ENTER
  Stream* stream = stream_of(handle);
  if (stream == &driver.null_stream) return INVALID_VALUE;
  for (size_t at = 0; at < count; at++) {
    const int status = enqueue_copy(to[at], from[at], bytes[at], stream);
    if (status != SUCCESS) return status;
  }
  return SUCCESS;
}

CUDA_API cuMemsetD8Async(Address address, unsigned char value, size_t bytes, void* handle) {
  ENTER
  char* target = reach(address, bytes);
  Stream* stream = stream_of(handle);
  if (!target || !stream) return INVALID_VALUE;
  stream->queue.push_back([=] {
    std::memset(target, value, bytes);
    return true;
  });
  return SUCCESS;
}
