// A fake of the CUDA driver, libcuda.so.1, for tests on machines without a GPU.
//
// Device memory is a memfd, streams are queues whose work is done only when somebody waits for it,
// so that a missing wait shows as wrong bytes, and handles for other processes name descriptors in
// /proc. Kernels run on the CPU, from the library that FAKE_CUDA_KERNELS names. It shows neither
// races within a device nor anything of speed.
//
//   FAKE_CUDA_DEVICES=n   how many devices there are (2); with 0 there is no device
//   FAKE_CUDA_GUARD=1     a host that reads or writes device memory itself is killed by SIGSEGV
//   FAKE_CUDA_NO_PEERS=1  devices cannot reach each other's memory
//   FAKE_CUDA_VERSION=n   what cuDriverGetVersion says (13000)
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#define CUDA_API extern "C" __attribute__((visibility("default"))) int

enum Status {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  PEER_ACCESS_UNSUPPORTED = 217,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  PEER_ACCESS_ALREADY_ENABLED = 704,
  LAUNCH_FAILED = 719,
};

using Address = uint64_t;
constexpr int MAX_DEVICES = 8;

// A range of device memory: where the device has it, and where the driver itself reaches it.
struct Allocation {
  size_t bytes;
  char* alias;
  int device;
  int file;
  bool is_imported;
};

// What processes share of an event: how often it was recorded and how many of these are over.
struct EventCounts {
  uint64_t recorded;
  uint64_t done;
};

struct Event {
  EventCounts* counts;
  int file;
  bool is_interprocess;
};

// A piece of work; false where it waits for something that has not happened yet.
using Work = std::function<bool()>;

struct Stream {
  std::deque<Work> queue;
  int failure = SUCCESS;
};

struct Driver {
  std::mutex mutex;
  bool is_initialized = false;
  int devices = 2;
  bool is_guarded = false;
  bool has_peers = true;
  std::map<Address, Allocation> allocations;
  std::map<Stream*, std::unique_ptr<Stream>> streams;
  Stream null_stream;
};

extern Driver driver;
extern thread_local int current_device;  // -1 for none

// Every call but cuInit begins with this. The lock is let go where the call waits.
#define ENTER                                       \
  std::unique_lock<std::mutex> lock(driver.mutex); \
  if (!driver.is_initialized) return NOT_INITIALIZED;

// The stream of a handle: 0, 1 and 2 are the null stream's.
Stream* stream_of(void* handle);

// Does a stream's work up to its end.
int drain(Stream* stream, std::unique_lock<std::mutex>& lock);
int drain_all(std::unique_lock<std::mutex>& lock);

// Where the driver reaches a range of device memory; null if it is none.
char* reach(Address address, size_t bytes);

// Maps a memfd as device memory. `device` owns it.
int map_allocation(int file, size_t bytes, int device, bool is_imported, Address* address);
void unmap_allocation(Address address);
