#include "cores.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static int read_number(const char *path) {
  char text[32];
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -1;
  const ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return -1;
  text[length] = 0;
  return atoi(text);
}

// The scheduler's figure where the kernel knows one, else the clock frequency, else 0 for all.
static int speed(int core) {
  static const char *const files[] = {"/cpu_capacity", "/cpufreq/cpuinfo_max_freq"};
  for (int i = 0; i < 2; i++) {
    char path[80] = "/sys/devices/system/cpu/cpu";
    size_t end = strlen(path);
    if (core >= 10) path[end++] = (char)('0' + core / 10);
    path[end++] = (char)('0' + core % 10);
    strcpy(path + end, files[i]);
    const int found = read_number(path);
    if (found > 0) return found;
  }
  return 0;
}

dc_cores dc_rank_cores(void) {
  dc_cores found = {.count = 0};
  uint64_t mask[16] = {0};
  if (syscall(SYS_sched_getaffinity, 0, sizeof mask, mask) <= 0) return found;
  for (int core = 0; core < DC_MOST_CORES; core++) {
    if (!(mask[0] >> core & 1)) continue;
    const int own = speed(core);
    int place = found.count++;
    for (; place > 0 && found.speeds[place - 1] < own; place--) {
      found.speeds[place] = found.speeds[place - 1];
      found.cores[place] = found.cores[place - 1];
    }
    found.speeds[place] = own;
    found.cores[place] = core;
  }
  return found;
}

int dc_cores_are_equal(const dc_cores *known, int count) {
  if (count > known->count) count = known->count;
  return count < 1 || known->speeds[0] == known->speeds[count - 1];
}

int dc_this_core(void) {
  unsigned core = 0;
  return syscall(SYS_getcpu, &core, NULL, NULL) ? -1 : (int)core;
}

int dc_this_thread(void) { return (int)syscall(SYS_gettid); }

void dc_place_thread(const dc_cores *known, int threads, int thread, int caller) {
  if (threads > known->count) return;
  const int wanted = dc_cores_are_equal(known, known->count) ? known->count : threads;
  uint64_t mask[16] = {0};
  for (int i = 0; i < wanted; i++)
    if (known->cores[i] != caller) mask[0] |= UINT64_C(1) << known->cores[i];
  if (mask[0]) syscall(SYS_sched_setaffinity, thread, sizeof mask, mask);
}
