// Big and small cores, as Linux describes them, and who runs where.
#ifndef DISTILLC_CORES_H
#define DISTILLC_CORES_H

enum { DC_MOST_CORES = 64 };

// The cores that this process may use, the fastest first.
typedef struct {
  int cores[DC_MOST_CORES], speeds[DC_MOST_CORES];
  int count;
} dc_cores;

dc_cores dc_rank_cores(void);

// Whether the `count` fastest are equally fast.
int dc_cores_are_equal(const dc_cores *known, int count);

int dc_this_core(void);
int dc_this_thread(void);

// Keeps a thread of `threads` on the fastest cores, and off the one that its caller runs on: a
// thread that is woken there would share that core for milliseconds before the system moves it.
// Nothing happens where there are fewer cores than threads, or the system does not allow it.
void dc_place_thread(const dc_cores *known, int threads, int thread, int caller);

#endif
