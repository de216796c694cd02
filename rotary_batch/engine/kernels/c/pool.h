/* Threads that share a loop, and yield the processor while they have nothing to do. */

#ifndef ROTARY_BATCH_POOL_H
#define ROTARY_BATCH_POOL_H

/* Runs function(context, task) once for every task from 0 to count - 1, on up to `threads` threads including the
   caller's, and returns when all are done.  Tasks are taken one by one, in order.  While a loop is running, a loop of
   another thread, or one inside a task, is run by its caller alone. */
void parallel_for(long count, void (*function)(void *context, long task), void *context, int threads);

#endif
