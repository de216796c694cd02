/* A stress test of the thread pool, which test_pool.py builds and runs, plain and with sanitizers.  Prints the first
   failure and exits with 1. */

#include "pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_TASKS 1000

struct runs {
  int threads;          /* of a loop within each task; 0 = none */
  int times[MAX_TASKS]; /* how often each task ran; not atomic, because each belongs to one thread */
  struct runs *inner;   /* of each task */
};

static void fail(const char *what, long actual, long expected) {
  printf("%s: %ld, not %ld\n", what, actual, expected);
  exit(1);
}

static void count_task(void *context, long task) { ((struct runs *)context)->times[task]++; }

static void nested_task(void *context, long task) {
  struct runs *runs = context;
  runs->times[task]++;
  parallel_for(10, count_task, &runs->inner[task], runs->threads);
}

static void check(const char *what, const struct runs *runs, long count, int times) {
  for (long task = 0; task < MAX_TASKS; task++)
    if (runs->times[task] != (task < count ? times : 0)) fail(what, runs->times[task], times);
}

static void every_task_runs_once(void) {
  for (int threads = 0; threads <= 5; threads++)
    for (long count = 0; count <= MAX_TASKS; count = count * 3 / 2 + 1) {
      struct runs runs = {0};
      parallel_for(count, count_task, &runs, threads);
      check("tasks", &runs, count, 1);
    }
}

static void many_short_loops(int loops) {
  struct runs runs = {0};
  for (int n = 0; n < loops; n++) parallel_for(7, count_task, &runs, 3);
  check("short loops", &runs, 7, loops);
}

static void loops_within_tasks(void) {
  struct runs inner[20], outer = {3, {0}, inner};
  memset(inner, 0, sizeof inner);
  for (int n = 0; n < 50; n++) parallel_for(20, nested_task, &outer, 3);
  check("outer tasks", &outer, 20, 50);
  for (int n = 0; n < 20; n++) check("inner tasks", inner + n, 10, 50);
}

static void *call_often(void *loops) {
  many_short_loops((int)(long)loops);
  return 0;
}

static void several_callers(long loops) {
  pthread_t callers[3];
  for (int n = 0; n < 3; n++) pthread_create(callers + n, 0, call_often, (void *)loops);
  for (int n = 0; n < 3; n++) pthread_join(callers[n], 0);
}

static void pause_between(void) { /* long enough for workers to fall asleep */
  for (int n = 0; n < 30; n++) {
    many_short_loops(1);
    nanosleep(&(struct timespec){0, 300000}, 0);
  }
}

static pthread_t main_thread;

static void sleep_in_worker(void *context, long task) {
  (void)task;
  if (pthread_equal(pthread_self(), main_thread)) ++*(int *)context;
  else nanosleep(&(struct timespec){0, 200000000}, 0);
}

/* A delayed worker keeps its one task, and the caller does the rest meanwhile. */
static void caller_takes_the_rest(void) {
  int by_caller = 0;
  parallel_for(50, sleep_in_worker, &by_caller, 2);
  if (by_caller < 25) fail("tasks of the caller while a worker sleeps", by_caller, 49);
}

static void after_fork(void) {
  for (int n = 0; n < 8; n++) {
    const pid_t child = fork();
    if (child == 0) {
      many_short_loops(50);
      loops_within_tasks();
      _exit(0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status) fail("exit of a child", status, 0);
    many_short_loops(10);
  }
}

static long num_threads(void) {
  FILE *file = fopen("/proc/self/stat", "r");
  long threads = 0;
  if (!file || fscanf(file, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld", &threads) != 1)
    fail("/proc/self/stat", 0, 1);
  fclose(file);
  return threads;
}

int main(int argc, char **argv) {
  const int loops = argc > 1 ? atoi(argv[1]) : 1000;
  const long before = num_threads();
  main_thread = pthread_self();
  struct runs alone = {0};
  parallel_for(9, count_task, &alone, 1);
  if (num_threads() != before) fail("threads before there is work for two", num_threads(), before);
  every_task_runs_once();
  if (num_threads() < before + 4) fail("threads after loops for five", num_threads(), before + 4);
  many_short_loops(loops);
  loops_within_tasks();
  several_callers(loops);
  pause_between();
  caller_takes_the_rest();
  after_fork();
  return 0;
}
