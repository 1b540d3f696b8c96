// Single kernels against the clock, for programs.
#ifndef DISTILLC_KERNELS_H
#define DISTILLC_KERNELS_H

#include "network.h"
#include "pool.h"

// Where kernels and their threads come from.
typedef struct {
  dc_kernel *(*find)(void *context, const char *name);  // null where there is none
  void *context;
  dc_pool *(*create)(int threads, int *no_threads);
  void (*enter)(dc_pool *pool);
} dc_kernel_source;

// Runs kernels in turn, all with the same operands, and prints a JSON object. `words` are SHAPES
// OUTPUTS WARMUP RUNS NAME [NAME ...]: random float32 of SHAPES, say 1,48,64;48,48;1,48,64, of
// which the last OUTPUTS are written. Prints milliseconds, see `dc_race`, and, for each kernel, the
// largest difference of its outputs from the first one's, over their largest value.
void dc_race_kernels(int count, char **words, int threads, const dc_kernel_source *source);

#endif
