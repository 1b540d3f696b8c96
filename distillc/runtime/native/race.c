#include "race.h"

#include "clock.h"
#include "network.h"

void *dc_allocate(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, DC_ALIGNMENT, bytes ? bytes : 1)) FAIL("no memory for a tensor");
  return memory;
}

void dc_race(int count, int warmup, int runs, void (*call)(void *, int), void *context) {
  double *ms = dc_allocate(sizeof *ms * (size_t)count * (size_t)runs);
  for (int run = -warmup; run < runs; run++)
    for (int i = 0; i < count; i++) {
      const double start = dc_now_ms();
      call(context, i);
      if (run >= 0) ms[i * runs + run] = dc_now_ms() - start;
    }
  printf("\"ms\": [");
  for (int i = 0; i < count; i++) {
    printf(i ? ", [" : "[");
    for (int run = 0; run < runs; run++) printf("%s%.6g", run ? ", " : "", ms[i * runs + run]);
    printf("]");
  }
  printf("]");
  free(ms);
}

