// Streams and events. Work is done when somebody waits for it, by whoever waits.
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "driver.h"

static uint64_t load(const uint64_t& count) { return __atomic_load_n(&count, __ATOMIC_ACQUIRE); }

Stream* stream_of(void* handle) {
  if (reinterpret_cast<uintptr_t>(handle) <= 2) return &driver.null_stream;
  const auto found = driver.streams.find(static_cast<Stream*>(handle));
  return found == driver.streams.end() ? nullptr : found->second.get();
}

// Does what can be done now. Work of other streams that a stream waits for is done with it: those
// of a real device do not wait for somebody who asks.
static void step() {
  for (bool any = true; any;) {
    any = false;
    const auto advance = [&](Stream& stream) {
      while (!stream.queue.empty() && stream.queue.front()()) {
        stream.queue.pop_front();
        any = true;
      }
    };
    advance(driver.null_stream);
    for (auto& [handle, stream] : driver.streams) advance(*stream);
  }
}

// Lets others in between: the thread that records, or another process.
static void pause(std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  sched_yield();
  lock.lock();
}

int drain(Stream* stream, std::unique_lock<std::mutex>& lock) {
  if (!stream) return INVALID_HANDLE;
  while (!stream->queue.empty()) {
    if (stream->queue.front()()) {
      stream->queue.pop_front();
      continue;
    }
    step();
    if (!stream->queue.empty()) pause(lock);
  }
  return stream->failure;
}

int drain_all(std::unique_lock<std::mutex>& lock) {
  int status = drain(&driver.null_stream, lock);
  std::vector<Stream*> all;
  for (auto& [handle, stream] : driver.streams) all.push_back(handle);
  for (Stream* stream : all)
    if (driver.streams.count(stream)) status = std::max(status, drain(stream, lock));
  return status;
}

CUDA_API cuStreamCreate(void** handle, unsigned) {
  ENTER
  if (current_device < 0) return INVALID_CONTEXT;
  auto stream = std::make_unique<Stream>();
  *handle = stream.get();
  driver.streams[stream.get()] = std::move(stream);
  return SUCCESS;
}

CUDA_API cuStreamDestroy_v2(void* handle) {
  ENTER
  const int status = drain(stream_of(handle), lock);
  driver.streams.erase(static_cast<Stream*>(handle));
  return status;
}

CUDA_API cuStreamSynchronize(void* handle) {
  ENTER
  return drain(stream_of(handle), lock);
}

CUDA_API cuEventCreate(void** handle, unsigned flags) {
  ENTER
  const int file = memfd_create("fake event", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, 4096) != 0) return OUT_OF_MEMORY;
  void* counts = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (counts == MAP_FAILED) return OUT_OF_MEMORY;
  *handle = new Event{static_cast<EventCounts*>(counts), file, (flags & 4) != 0};
  return SUCCESS;
}

CUDA_API cuEventDestroy_v2(void* handle) {
  ENTER
  Event* event = static_cast<Event*>(handle);
  // Work that waits for it or records it has the page by its address: it stays mapped.
  close(event->file);
  delete event;
  return SUCCESS;
}

CUDA_API cuEventRecord(void* handle, void* on) {
  ENTER
  EventCounts* counts = static_cast<Event*>(handle)->counts;
  Stream* stream = stream_of(on);
  if (!stream) return INVALID_HANDLE;
  const uint64_t generation = __atomic_add_fetch(&counts->recorded, 1, __ATOMIC_ACQ_REL);
  stream->queue.push_back([=] {
    // Streams that record one event end in any order: what is over stays over.
    uint64_t done = load(counts->done);
    while (done < generation && !__atomic_compare_exchange_n(&counts->done, &done, generation, false,
                                                             __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return true;
  });
  return SUCCESS;
}

// A query drives nothing here: it says what was done because somebody waited.
CUDA_API cuEventQuery(void* handle) {
  ENTER
  const EventCounts* counts = static_cast<Event*>(handle)->counts;
  return load(counts->done) >= load(counts->recorded) ? SUCCESS : NOT_READY;
}

CUDA_API cuEventSynchronize(void* handle) {
  ENTER
  const EventCounts* counts = static_cast<Event*>(handle)->counts;
  const uint64_t generation = load(counts->recorded);
  while (load(counts->done) < generation) {
    step();
    if (load(counts->done) < generation) pause(lock);
  }
  return SUCCESS;
}

CUDA_API cuStreamWaitEvent(void* handle, void* event, unsigned) {
  ENTER
  const EventCounts* counts = static_cast<Event*>(event)->counts;
  const uint64_t generation = load(counts->recorded);
  Stream* stream = stream_of(handle);
  if (!stream) return INVALID_HANDLE;
  stream->queue.push_back([=] { return load(counts->done) >= generation; });
  return SUCCESS;
}
