// The threads of a CUDA block as fibers of one thread of the host.
//
// A block runs until all of its fibers have ended. Fibers are resumed in an order that a seed
// shuffles, and each runs on until a barrier or its end: what a missing barrier lets one thread see
// of another differs from seed to seed, and with it the result. Two threads never run at once, so
// that a race of single accesses cannot be seen here.
#pragma once

#include <csetjmp>
#include <ucontext.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  constexpr unsigned count() const { return x * y * z; }
};

// Static shared memory: one block runs at a time, so one copy is enough. The linker names its ends.
extern "C" char __start_cuda_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_cuda_shared[] __attribute__((weak, visibility("hidden")));

namespace cuda_host {

constexpr unsigned WARP = 32;
constexpr size_t STACK_BYTES = 64 << 10;

enum class State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, ENDED };

// Fibers begin by makecontext and switch by _longjmp: swapcontext asks the kernel for the signal
// mask each time, which was most of the time of a test.
struct Fiber {
  ucontext_t first;
  jmp_buf resumed;
  bool has_begun = false;
  dim3 index;
  unsigned linear;
  State state;
  uint64_t exchanged;  // What this lane shows the others of its warp.
  std::unique_ptr<char[]> stack{new char[STACK_BYTES]};
};

inline std::deque<Fiber> fibers;  // Which never move: they hold addresses of themselves.
inline Fiber* running;
inline jmp_buf scheduler;
inline dim3 block_index, block_dim, grid_dim;
inline unsigned block_threads;
inline void (*body)(void*);
inline void* body_argument;
inline std::mt19937_64 order_of_fibers;

inline void wait(State at) {
  running->state = at;
  if (_setjmp(running->resumed) == 0) _longjmp(scheduler, 1);
}

// A fiber lives for all blocks: one turn of the loop is one block's thread.
inline void fiber_main() {
  for (;;) {
    body(body_argument);
    wait(State::ENDED);
  }
}

inline void resume(Fiber& fiber) {
  running = &fiber;
  if (_setjmp(scheduler) != 0) return;
  if (fiber.has_begun) _longjmp(fiber.resumed, 1);
  fiber.has_begun = true;
  getcontext(&fiber.first);
  fiber.first.uc_stack.ss_sp = fiber.stack.get();
  fiber.first.uc_stack.ss_size = STACK_BYTES;
  makecontext(&fiber.first, fiber_main, 0);
  setcontext(&fiber.first);
}

// Lets go of the barrier in `begin..end` if all that have not ended are at it.
inline bool release(unsigned begin, unsigned end, State barrier) {
  bool any = false;
  for (unsigned at = begin; at < end; at++) {
    if (fibers[at].state == State::ENDED) continue;
    if (fibers[at].state != barrier) return false;
    any = true;
  }
  for (unsigned at = begin; at < end; at++)
    if (fibers[at].state == barrier) fibers[at].state = State::READY;
  return any;
}

// One block; false where threads wait for each other at different barriers for ever.
inline bool run_block() {
  for (char* at = __start_cuda_shared; at < __stop_cuda_shared; at++) *at = char(0xa5);
  for (unsigned at = 0; at < block_threads; at++) {
    Fiber& fiber = fibers[at];
    fiber.linear = at;
    fiber.index = {at % block_dim.x, at / block_dim.x % block_dim.y,
                   at / (block_dim.x * block_dim.y)};
    fiber.state = State::READY;
  }
  std::vector<unsigned> order(block_threads);
  std::iota(order.begin(), order.end(), 0u);
  for (;;) {
    std::shuffle(order.begin(), order.end(), order_of_fibers);
    for (unsigned at : order) {
      if (fibers[at].state == State::READY) resume(fibers[at]);
    }
    bool has_ended = true;
    for (unsigned at = 0; at < block_threads; at++)
      has_ended &= fibers[at].state == State::ENDED;
    if (has_ended) return true;
    bool released = release(0, block_threads, State::AT_BLOCK_BARRIER);
    for (unsigned at = 0; at < block_threads; at += WARP)
      released |= release(at, std::min(at + WARP, block_threads), State::AT_WARP_BARRIER);
    if (!released) {
      std::fprintf(stderr, "cuda_host: threads of one block wait at different barriers\n");
      for (Fiber& fiber : fibers) fiber.has_begun = false;  // They are lost where they are.
      return false;
    }
  }
}

// Every block of a grid, in an order that is shuffled too.
inline bool run_grid(dim3 grid, dim3 block, void (*function)(void*), void* argument) {
  grid_dim = grid;
  block_dim = block;
  block_threads = block.count();
  body = function;
  body_argument = argument;
  if (fibers.size() < block_threads) fibers.resize(block_threads);
  std::vector<unsigned> blocks(grid.count());
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), order_of_fibers);
  for (unsigned at : blocks) {
    block_index = {at % grid.x, at / grid.x % grid.y, at / (grid.x * grid.y)};
    if (!run_block()) return false;
  }
  return true;
}

// What lane `source` of this warp gave; this lane's own where there is no such lane.
template <class T> T exchange(T value, unsigned source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  std::memcpy(&running->exchanged, &value, sizeof(T));
  wait(State::AT_WARP_BARRIER);
  const unsigned lane = running->linear / WARP * WARP + source;
  const Fiber& other = source < WARP && lane < block_threads ? fibers[lane] : *running;
  T received;
  std::memcpy(&received, &other.exchanged, sizeof(T));
  wait(State::AT_WARP_BARRIER);
  return received;
}

}  // namespace cuda_host
