// Threads of one model, and the memory that kernels ask for inside them.
#ifndef DISTILLC_POOL_H
#define DISTILLC_POOL_H

#include <stddef.h>

typedef struct dc_pool dc_pool;

// Starts threads - 1 workers; null where memory or threads run out (`*no_threads` says which).
dc_pool *dc_pool_create(int threads, int *no_threads);
void dc_pool_destroy(dc_pool *pool);

int dc_pool_threads(const dc_pool *pool);

// From here on kernels that this thread calls use the pool, until `dc_pool_leave`.
void dc_pool_enter(dc_pool *pool);
void dc_pool_leave(void);

// Where a kernel says what is wrong with its operands; null in threads that run no model.
const char *dc_kernel_error(void);

#endif
