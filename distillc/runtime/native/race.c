#include "race.h"

#include <math.h>
#include <time.h>

#include "clock.h"
#include "network.h"

enum { FIRST_PAUSE_MS = 100, LONGEST_PAUSE_MS = 3200 };

static const double slowed = 1.25;  // times the least: more than noise

void *dc_allocate(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, DC_ALIGNMENT, bytes ? bytes : 1)) FAIL("no memory for a tensor");
  return memory;
}

static void rest(int milliseconds) {
  const struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
  nanosleep(&time, NULL);
}

static double time_call(void (*call)(void *, int), void *context, int index) {
  const double start = dc_now_ms();
  call(context, index);
  return dc_now_ms() - start;
}

void dc_race(int count, int warmup, int runs, int repeats, void (*call)(void *, int),
             void *context) {
  double *ms = dc_allocate(sizeof *ms * (size_t)count * (size_t)runs);
  double *least = dc_allocate(sizeof *least * (size_t)count);
  int *slow = dc_allocate(sizeof *slow * (size_t)count);
  int repeated = 0, pause = FIRST_PAUSE_MS;
  for (int i = 0; i < count; i++) least[i] = HUGE_VAL;
  for (int run = -warmup; run < 0; run++)
    for (int i = 0; i < count; i++) call(context, i);
  for (int run = 0; run < runs;) {
    int together = 0;
    for (int i = 0; i < count; i++) {
      double *own = &ms[i * runs + run];
      *own = time_call(call, context, i);
      together += slow[i] = *own > slowed * least[i];
      least[i] = fmin(least[i], *own);
    }
    if (2 * together > count && repeated < repeats) {  // throttled, or busy with something else
      repeated++;
      rest(pause);
      pause = 2 * pause < LONGEST_PAUSE_MS ? 2 * pause : LONGEST_PAUSE_MS;
      continue;
    }
    for (int i = 0; repeats && i < count; i++)
      if (slow[i]) ms[i * runs + run] = time_call(call, context, i);
    pause = FIRST_PAUSE_MS;
    run++;
  }
  printf("\"repeated\": %d, \"ms\": [", repeated);
  for (int i = 0; i < count; i++) {
    printf(i ? ", [" : "[");
    for (int run = 0; run < runs; run++) printf("%s%.6g", run ? ", " : "", ms[i * runs + run]);
    printf("]");
  }
  printf("]");
  free(ms);
  free(least);
  free(slow);
}
