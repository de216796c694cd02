/* A pool of threads for short loops, on processors that other programs use as well.

   OpenMP's threads spin while they wait.  With one busy process on one of two cores that costs 90 % of the speed: the
   caller spins for a thread that is not running, and a waiting thread uses up the time that the OS gives it.  Here a
   waiting thread spins for some microseconds and then sleeps in the kernel.  The caller takes tasks like any other
   thread and waits only for tasks that have begun: a worker that the OS does not run delays nothing.

   A loop is published by setting `left`; each thread takes a task by decrementing `left`.  Only a thread that has taken
   a task reads the loop, which does not change until `unfinished` is 0. */

#define _GNU_SOURCE
#include "pool.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <sched.h>
#endif

#define MAX_WORKERS 255
#ifndef SPIN_NS
#define SPIN_NS 150000 /* 32 sequences decode at 97.8 % of the speed of threads that never sleep, at 20 us 93 % */
#endif
#define PAUSES 16 /* between two looks at the clock */

static struct {
  void (*function)(void *, long);
  void *context;
  int32_t count;
} loop;

static _Atomic int32_t left;       /* tasks that nobody has taken; below 0 when several threads wanted one more */
static _Atomic int32_t unfinished; /* tasks that have not ended */
static _Atomic int32_t posted;     /* incremented with every loop */
static _Atomic int32_t helpers;    /* workers that may take tasks of this loop */
static _Atomic int32_t sleepers;   /* workers that sleep or are about to */
static _Atomic int caller_sleeps;
static atomic_flag is_busy = ATOMIC_FLAG_INIT;
static int num_workers; /* guarded by is_busy, like everything that is written outside workers */

static void sleep_while(_Atomic int32_t *address, int32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
#else
  if (atomic_load(address) == value) sched_yield();
#endif
}

static void wake(_Atomic int32_t *address, int count) {
#if defined(__linux__)
  syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
#else
  (void)address, (void)count;
#endif
}

static int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* Whether `address` changes from `value` while this thread spins. */
static int changes_soon(_Atomic int32_t *address, int32_t value) {
  const int64_t end = now_ns() + SPIN_NS;
  do {
    for (int n = 0; n < PAUSES; n++) {
      if (atomic_load_explicit(address, memory_order_acquire) != value) return 1;
#if defined(__x86_64__) || defined(__i386__)
      __builtin_ia32_pause();
#endif
    }
  } while (now_ns() < end);
  return 0;
}

static void take_tasks(void) {
  int32_t mine, finished = 0;
  while (atomic_load_explicit(&left, memory_order_relaxed) > 0 && (mine = atomic_fetch_sub(&left, 1)) > 0) {
    loop.function(loop.context, loop.count - mine);
    finished++;
  }
  if (finished && atomic_fetch_sub(&unfinished, finished) == finished && atomic_load(&caller_sleeps))
    wake(&unfinished, 1);
}

static void *work(void *number) {
  for (;;) {
    const int32_t seen = atomic_load(&posted);
    if ((intptr_t)number < atomic_load(&helpers)) take_tasks();
    if (changes_soon(&posted, seen)) continue;
    atomic_fetch_add(&sleepers, 1);
    while (atomic_load(&posted) == seen) sleep_while(&posted, seen);
    atomic_fetch_sub(&sleepers, 1);
  }
  return 0;
}

/* A forked child does not have its parent's workers. */
static void forget_workers(void) {
  num_workers = 0;
  atomic_store(&left, 0);
  atomic_store(&sleepers, 0);
  atomic_store(&caller_sleeps, 0);
  atomic_flag_clear(&is_busy);
}

static void register_fork_handler(void) { pthread_atfork(0, 0, forget_workers); }

/* Workers block all signals, which are for the program's own threads.  If the OS refuses threads, the pool is smaller.
 */
static void start_workers(int wanted) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, register_fork_handler);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  for (pthread_t thread; num_workers < wanted; num_workers++) {
    if (pthread_create(&thread, 0, work, (void *)(intptr_t)num_workers)) break;
    pthread_detach(thread);
  }
  pthread_sigmask(SIG_SETMASK, &before, 0);
}

static void publish(int32_t count, void (*function)(void *, long), void *context, int wanted) {
  loop.function = function, loop.context = context, loop.count = count;
  atomic_store(&helpers, wanted);
  atomic_store(&unfinished, count);
  atomic_store(&left, count);
  atomic_fetch_add(&posted, 1);
  if (atomic_load(&sleepers)) wake(&posted, INT_MAX);
}

static void wait_for_others(void) {
  for (int32_t rest; (rest = atomic_load(&unfinished));) {
    if (changes_soon(&unfinished, rest)) continue;
    atomic_store(&caller_sleeps, 1);
    sleep_while(&unfinished, rest);
    atomic_store(&caller_sleeps, 0);
  }
}

void parallel_for(long count, void (*function)(void *context, long task), void *context, int threads) {
  long wanted = (threads < count ? threads : count) - 1;
  if (wanted > MAX_WORKERS) wanted = MAX_WORKERS;
  if (wanted < 1 || count > INT32_MAX || atomic_flag_test_and_set(&is_busy)) {
    for (long task = 0; task < count; task++) function(context, task);
    return;
  }
  if (num_workers < wanted) start_workers((int)wanted);
  publish((int32_t)count, function, context, (int)wanted);
  take_tasks();
  wait_for_others();
  atomic_flag_clear(&is_busy);
}
