// Runs the parallel loops of kernels. Kernels call four functions of TVM's C runtime by name; here
// they are, without the rest of it.
//
// A loop is cut into tasks. `ticket` holds the number of the loop, of its tasks, and of the next
// task, in one word: who advances it by compare-and-swap has that task, and what belongs to the
// loop cannot change meanwhile, since the loop does not end before its tasks.
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cores.h"
#include "network.h"

enum {
  SPINS = 4000,  // some ten microseconds, about what waking a thread takes
  UNEVEN = 4,    // tasks a thread where cores are not equally fast
  MOST_TASKS = 1 << 15,
  STACK_BYTES = 1 << 20,
};

typedef struct {
  void *barrier;
  int32_t tasks;
} environment;

typedef int task_function(int task, environment *env, void *data);

// Memory that kernels take and give back in the order of a stack.
typedef struct {
  char *base;
  size_t size, top, wanted;
} scratch;

// A worker: its thread, as the system numbers it once it runs, and the core it keeps off.
typedef struct {
  pthread_t thread;
  atomic_int number;
  int off;  // plus 1; 0: none yet
} worker;

struct dc_pool {
  int threads, tasks;
  dc_cores cores;
  _Atomic uint64_t ticket;
  _Atomic(task_function *) function;
  _Atomic(void *) data;
  atomic_int remaining, failed, sleepers, stop;
  pthread_mutex_t lock;
  pthread_cond_t wake;
  worker *workers;
  int started;
  scratch *scratches;  // one for each thread, the caller's first
};

static _Thread_local dc_pool *current;
static _Thread_local scratch *own;
static _Thread_local const char *kernel_error;

static uint64_t ticket_tasks(uint64_t ticket) { return ticket >> 16 & 0xffff; }
static uint64_t ticket_next(uint64_t ticket) { return ticket & 0xffff; }

static void pause_briefly(void) {
#if defined(__aarch64__)
  __asm__ volatile("yield");
#elif defined(__x86_64__)
  __asm__ volatile("pause");
#endif
}

// Runs one task, if the loop has one left; says whether it had.
static int take_task(dc_pool *pool, uint64_t ticket) {
  if (ticket_next(ticket) >= ticket_tasks(ticket)) return 0;
  task_function *function = atomic_load(&pool->function);
  void *data = atomic_load(&pool->data);
  if (!atomic_compare_exchange_strong(&pool->ticket, &ticket, ticket + 1)) return 1;
  environment env = {NULL, (int32_t)ticket_tasks(ticket)};
  if (function((int)ticket_next(ticket), &env, data)) atomic_store(&pool->failed, 1);
  atomic_fetch_sub(&pool->remaining, 1);
  return 1;
}

static int has_work(dc_pool *pool) {
  const uint64_t ticket = atomic_load(&pool->ticket);
  return ticket_next(ticket) < ticket_tasks(ticket) || atomic_load(&pool->stop);
}

typedef struct {
  dc_pool *pool;
  int index;
} worker_start;

static void *work(void *argument) {
  const worker_start start = *(worker_start *)argument;
  free(argument);
  dc_pool *pool = start.pool;
  own = &pool->scratches[start.index];
  atomic_store(&pool->workers[start.index - 1].number, dc_this_thread());
  int idle = 0;
  while (!atomic_load(&pool->stop)) {
    if (take_task(pool, atomic_load(&pool->ticket))) {
      idle = 0;
    } else if (++idle < SPINS) {
      pause_briefly();
    } else {
      pthread_mutex_lock(&pool->lock);
      atomic_fetch_add(&pool->sleepers, 1);
      while (!has_work(pool)) pthread_cond_wait(&pool->wake, &pool->lock);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->lock);
      idle = 0;
    }
  }
  return NULL;
}

static void wake_sleepers(dc_pool *pool) {
  if (!atomic_load(&pool->sleepers)) return;
  pthread_mutex_lock(&pool->lock);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
}

dc_pool *dc_pool_create(int threads, int *no_threads) {
  *no_threads = 0;
  dc_pool *pool = calloc(1, sizeof *pool);
  if (!pool) return NULL;
  pool->threads = threads;
  pool->cores = dc_rank_cores();
  pool->tasks = dc_cores_are_equal(&pool->cores, threads) ? threads : threads * UNEVEN;
  if (pool->tasks > MOST_TASKS) pool->tasks = MOST_TASKS;
  pool->workers = calloc((size_t)threads, sizeof *pool->workers);
  pool->scratches = calloc((size_t)threads, sizeof *pool->scratches);
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->wake, NULL);
  if (!pool->workers || !pool->scratches) {
    dc_pool_destroy(pool);
    return NULL;
  }
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, STACK_BYTES);
  while (pool->started < threads - 1) {
    worker_start *start = malloc(sizeof *start);
    if (!start) break;
    *start = (worker_start){pool, pool->started + 1};
    if (pthread_create(&pool->workers[pool->started].thread, &attributes, work, start)) {
      free(start);
      *no_threads = 1;
      break;
    }
    pool->started++;
  }
  pthread_attr_destroy(&attributes);
  for (int i = 0; i < pool->started; i++)
    while (!atomic_load(&pool->workers[i].number)) sched_yield();
  if (pool->started == threads - 1) return pool;
  dc_pool_destroy(pool);
  return NULL;
}

void dc_pool_destroy(dc_pool *pool) {
  if (!pool) return;
  atomic_store(&pool->stop, 1);
  pthread_mutex_lock(&pool->lock);
  pthread_cond_broadcast(&pool->wake);
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].thread, NULL);
  pthread_cond_destroy(&pool->wake);
  pthread_mutex_destroy(&pool->lock);
  for (int i = 0; pool->scratches && i < pool->threads; i++) free(pool->scratches[i].base);
  free(pool->scratches);
  free(pool->workers);
  free(pool);
}

int dc_pool_threads(const dc_pool *pool) { return pool->threads; }

static void keep_off(dc_pool *pool, int core) {
  for (int i = 0; i < pool->started; i++) {
    worker *one = &pool->workers[i];
    const int number = atomic_load(&one->number);
    if (!number || one->off == core + 1) continue;
    dc_place_thread(&pool->cores, pool->threads, number, core);
    one->off = core + 1;
  }
}

void dc_pool_enter(dc_pool *pool) {
  keep_off(pool, dc_this_core());
  current = pool;
  own = &pool->scratches[0];
  kernel_error = NULL;
}

void dc_pool_leave(void) {
  current = NULL;
  own = NULL;
}

const char *dc_kernel_error(void) { return kernel_error; }

int TVMBackendParallelLaunch(task_function *function, void *data, int tasks) {
  dc_pool *pool = current;
  if (!pool || pool->threads == 1) {
    environment env = {NULL, 1};
    return function(0, &env, data);
  }
  if (tasks <= 0 || tasks > MOST_TASKS) tasks = pool->tasks;
  // Kernels that a task calls do not share it out again.
  current = NULL;
  atomic_store(&pool->failed, 0);
  atomic_store(&pool->function, function);
  atomic_store(&pool->data, data);
  atomic_store(&pool->remaining, tasks);
  const uint64_t loop = (atomic_load(&pool->ticket) >> 32) + 1;
  atomic_store(&pool->ticket, loop << 32 | (uint64_t)tasks << 16);
  wake_sleepers(pool);
  while (take_task(pool, atomic_load(&pool->ticket))) {
  }
  for (int spins = 0; atomic_load(&pool->remaining); spins++) {
    if (spins < SPINS)
      pause_briefly();
    else
      sched_yield();
  }
  current = pool;
  return atomic_load(&pool->failed) ? -1 : 0;
}

// A block that does not fit the stack comes from the system, and the next time it fits.
typedef struct {
  scratch *owner;  // null: from the system
  size_t before;
} block_header;

enum { HEADER_BYTES = DC_ALIGNMENT };

void *TVMBackendAllocWorkspace(int device_type, int device, uint64_t bytes, int code, int bits) {
  (void)device_type, (void)device, (void)code, (void)bits;
  const size_t needed = HEADER_BYTES + (bytes + DC_ALIGNMENT - 1) / DC_ALIGNMENT * DC_ALIGNMENT;
  scratch *stack = own;
  if (stack && !stack->top && stack->size < stack->wanted) {
    void *larger = NULL;
    if (!posix_memalign(&larger, DC_ALIGNMENT, stack->wanted)) {
      free(stack->base);
      stack->base = larger;
      stack->size = stack->wanted;
    }
  }
  char *block;
  block_header header = {NULL, 0};
  if (stack && stack->size - stack->top >= needed) {
    block = stack->base + stack->top;
    header = (block_header){stack, stack->top};
    stack->top += needed;
  } else {
    void *found = NULL;
    if (posix_memalign(&found, DC_ALIGNMENT, needed)) return NULL;
    block = found;
  }
  if (stack) {
    const size_t use = stack->top + (header.owner ? 0 : needed);
    if (use > stack->wanted) stack->wanted = use;
  }
  memcpy(block, &header, sizeof header);
  return block + HEADER_BYTES;
}

int TVMBackendFreeWorkspace(int device_type, int device, void *pointer) {
  (void)device_type, (void)device;
  char *block = (char *)pointer - HEADER_BYTES;
  block_header header;
  memcpy(&header, block, sizeof header);
  if (header.owner)
    header.owner->top = header.before;
  else
    free(block);
  return 0;
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  (void)kind;
  kernel_error = count > 0 ? parts[0] : "";
}

// Kernels are found by the linker: none is entered into a table.
int TVMFFIEnvModRegisterSystemLibSymbol(const char *name, void *symbol) {
  (void)name, (void)symbol;
  return 0;
}
