// Initialisation, devices, contexts: one context a device, its primary one.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "driver.h"

Driver driver;
thread_local int current_device = -1;

static char contexts[MAX_DEVICES];
static constexpr size_t DEVICE_BYTES = size_t{8} << 30;

static int number(const char* name, int otherwise) {
  const char* given = std::getenv(name);
  return given ? std::atoi(given) : otherwise;
}

CUDA_API cuInit(unsigned) {
  std::unique_lock<std::mutex> lock(driver.mutex);
  driver.devices = number("FAKE_CUDA_DEVICES", 2);
  driver.is_guarded |= number("FAKE_CUDA_GUARD", 0) != 0;
  driver.has_peers = !number("FAKE_CUDA_NO_PEERS", 0);
  if (driver.devices == 0) return NO_DEVICE;
  driver.is_initialized = true;
  return SUCCESS;
}

// As FAKE_CUDA_GUARD, for who cannot set that before this process starts: allocations from here on.
extern "C" __attribute__((visibility("default"))) void fake_cuda_guard() {
  std::unique_lock<std::mutex> lock(driver.mutex);
  driver.is_guarded = true;
}

CUDA_API cuDriverGetVersion(int* version) {
  *version = number("FAKE_CUDA_VERSION", 13000);
  return SUCCESS;
}

CUDA_API cuDeviceGetCount(int* count) {
  ENTER
  *count = driver.devices;
  return SUCCESS;
}

CUDA_API cuDeviceGet(int* device, int ordinal) {
  ENTER
  if (ordinal < 0 || ordinal >= driver.devices) return INVALID_DEVICE;
  *device = ordinal;
  return SUCCESS;
}

CUDA_API cuDeviceGetName(char* name, int bytes, int device) {
  ENTER
  std::snprintf(name, bytes, "Fake CUDA device %d", device);
  return SUCCESS;
}

CUDA_API cuDeviceGetUuid_v2(char* uuid, int device) {
  ENTER
  std::memset(uuid, 0, 16);
  std::memcpy(uuid, "fake cuda", 9);
  uuid[15] = static_cast<char>(device);
  return SUCCESS;
}

// Compute capability 9.0; of no other attribute anything is asked.
CUDA_API cuDeviceGetAttribute(int* value, int attribute, int) {
  ENTER
  *value = attribute == 75 ? 9 : 0;
  return SUCCESS;
}

CUDA_API cuDevicePrimaryCtxRetain(void** context, int device) {
  ENTER
  if (device < 0 || device >= driver.devices) return INVALID_DEVICE;
  *context = &contexts[device];
  return SUCCESS;
}

CUDA_API cuDevicePrimaryCtxRelease_v2(int) {
  ENTER
  return SUCCESS;
}

CUDA_API cuCtxSetCurrent(void* context) {
  ENTER
  current_device = context ? static_cast<int>(static_cast<char*>(context) - contexts) : -1;
  return SUCCESS;
}

CUDA_API cuCtxGetCurrent(void** context) {
  ENTER
  *context = current_device < 0 ? nullptr : &contexts[current_device];
  return SUCCESS;
}

CUDA_API cuCtxSynchronize() {
  ENTER
  return drain_all(lock);
}

CUDA_API cuDeviceCanAccessPeer(int* can, int device, int peer) {
  ENTER
  *can = device != peer && driver.has_peers;
  return SUCCESS;
}

CUDA_API cuMemGetInfo_v2(size_t* unused, size_t* total) {
  ENTER
  if (current_device < 0) return INVALID_CONTEXT;
  *total = *unused = DEVICE_BYTES;
  for (auto& [address, allocation] : driver.allocations)
    if (allocation.device == current_device && !allocation.is_imported)
      *unused -= allocation.bytes;
  return SUCCESS;
}

CUDA_API cuGetErrorName(int, const char** name) {
  *name = "FAKE_CUDA_ERROR";
  return SUCCESS;
}

CUDA_API cuGetErrorString(int status, const char** text) {
  switch (status) {
    case NO_DEVICE: *text = "no CUDA-capable device is detected"; break;
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case INVALID_CONTEXT: *text = "invalid device context"; break;
    case INVALID_HANDLE: *text = "invalid resource handle"; break;
    case PEER_ACCESS_UNSUPPORTED: *text = "peer access is not supported"; break;
    default: *text = "the fake driver refuses this"; break;
  }
  return SUCCESS;
}
