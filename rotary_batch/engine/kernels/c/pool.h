/* Threads that share a loop, and leave the processor to others while they have nothing to do. */

#ifndef ROTARY_BATCH_POOL_H
#define ROTARY_BATCH_POOL_H

/* Runs function(context, task) once for every task from 0 to count - 1, on up to `threads` threads, the caller's among
   them, and returns when all are done.  Tasks are taken one by one, in order.  Another thread's loop, or one inside a
   task, that comes while one is running is run by its caller alone. */
void parallel_for(long count, void (*function)(void *context, long task), void *context, int threads);

#endif
