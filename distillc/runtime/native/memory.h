// How much memory this process needed.
#ifndef DISTILLC_MEMORY_H
#define DISTILLC_MEMORY_H

#include <stddef.h>
#include <stdio.h>

// Peak resident memory of only this program, 0 where the system does not say: getrusage would
// count the process that started it.
static inline size_t dc_peak_bytes(void) {
  FILE *status = fopen("/proc/self/status", "r");
  if (!status) return 0;
  char line[256];
  size_t kib = 0;
  while (fgets(line, sizeof line, status)) sscanf(line, "VmHWM: %zu", &kib);
  fclose(status);
  return kib * 1024;
}

#endif
