// Time that does not jump.
#ifndef DISTILLC_CLOCK_H
#define DISTILLC_CLOCK_H

#include <time.h>

static inline double dc_now_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return 1e3 * (double)time.tv_sec + 1e-6 * (double)time.tv_nsec;
}

#endif
