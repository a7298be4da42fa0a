// Threads of the OpenMP runtime that torch has loaded already.
//
// The runtime's entry is passed in, not linked: a second runtime in the process would start threads of its own, and
// which one a library binds to differs between compilers and between builds of torch.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace cellvim {

typedef void (*Fork)(void (*)(void*), void*, unsigned, unsigned);
static Fork fork_team = nullptr;

// Hands out numbers 0..tasks-1, each once, in whatever order threads come: no result may depend on who took which.
struct Queue {
  int64_t next, tasks;
  bool take(int64_t* task) {
    *task = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED);
    return *task < tasks;
  }
};

// Let `threads` threads run body(queue) until no task is left.
template <class Body>
static void share_out(int64_t threads, int64_t tasks, Body body) {
  struct Work {
    Queue queue;
    Body* body;
  } work{{0, tasks}, &body};
  const int64_t team = threads < tasks ? threads : tasks;
  if (team <= 1 || fork_team == nullptr) {
    body(work.queue);
    return;
  }
  fork_team(
      [](void* given) {
        Work* work = static_cast<Work*>(given);
        (*work->body)(work->queue);
      },
      &work, static_cast<unsigned>(team), 0);
}

// A large result lies in fresh memory, whose first touch costs more than computing it when it comes page by page: ask
// for large pages.
static inline void expect_large(float* result, int64_t floats) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t LARGE = 2 << 20;
  const uintptr_t start = (reinterpret_cast<uintptr_t>(result) + LARGE - 1) / LARGE * LARGE;
  const uintptr_t end = reinterpret_cast<uintptr_t>(result + floats) / LARGE * LARGE;
  if (end > start + LARGE) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);
#else
  (void)result, (void)floats;
#endif
}

// A thread's own memory, aligned to cache lines, zero at first.
struct Scratch {
  float* data;
  explicit Scratch(int64_t floats) {
    void* memory = nullptr;
    const size_t bytes = static_cast<size_t>(floats) * sizeof(float);
    if (posix_memalign(&memory, 64, bytes) != 0) abort();
    memset(memory, 0, bytes);
    data = static_cast<float*>(memory);
  }
  ~Scratch() { free(data); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

// How many pieces of the width each sample is cut into, so that every thread has work. Only for results that are the
// same for any cut.
static inline int64_t pieces_of_width(int64_t samples, int64_t width_vectors, int64_t threads) {
  if (samples % threads == 0 || samples >= 8 * threads) return 1;
  const int64_t wanted = (4 * threads + samples - 1) / samples, most = (width_vectors + 3) / 4;
  return wanted < most ? wanted : most;
}

}  // namespace cellvim
