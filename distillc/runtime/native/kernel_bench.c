// Single kernels as a program that needs nothing: `kernel_bench THREADS ...`, see
// `dc_race_kernels`.
#include <stdlib.h>
#include <string.h>

#include "kernels.h"
#include "race.h"

static dc_kernel *find_kernel(void *unused, const char *name) {
  (void)unused;
  for (const dc_entry *entry = dc_the_kernels; entry->name; entry++)
    if (!strcmp(entry->name, name)) return entry->kernel;
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 2) FAIL("usage: THREADS SHAPES OUTPUTS WARMUP RUNS NAME ...");
  const dc_kernel_source source = {find_kernel, NULL, dc_pool_create, dc_pool_enter};
  dc_race_kernels(argc - 2, argv + 2, atoi(argv[1]), &source);
  return 0;
}
