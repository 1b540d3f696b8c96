#include "cores.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST = 64 };

typedef struct {
  int cores[MOST], speeds[MOST];
  int count;
} ranking;

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

// The cores that this process may use, the fastest first.
static ranking rank(void) {
  ranking found = {.count = 0};
  uint64_t mask[16] = {0};
  if (syscall(SYS_sched_getaffinity, 0, sizeof mask, mask) <= 0) return found;
  for (int core = 0; core < MOST; core++) {
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

int dc_cores_are_equal(int count) {
  const ranking found = rank();
  if (count > found.count) count = found.count;
  return count < 1 || found.speeds[0] == found.speeds[count - 1];
}

void dc_prefer_fast_cores(int count) {
  const ranking found = rank();
  if (count >= found.count || found.speeds[0] == found.speeds[found.count - 1]) return;
  uint64_t mask[16] = {0};
  for (int i = 0; i < count; i++) mask[0] |= UINT64_C(1) << found.cores[i];
  syscall(SYS_sched_setaffinity, 0, sizeof mask, mask);
}
