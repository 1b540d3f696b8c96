// Things that take turns against the clock, for programs.
#ifndef DISTILLC_RACE_H
#define DISTILLC_RACE_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#define FAIL(...) (fprintf(stderr, "runner: " __VA_ARGS__), fputc('\n', stderr), exit(1))

// Memory for tensors; ends the program where there is none.
void *dc_allocate(size_t bytes);

// Calls each of `count` things in turn, round after round, and prints the milliseconds of each.
// With `repeats`, a round in which most took longer than they can is repeated after a pause, a
// longer one each time: the device was throttled, or busy. At most so many are, and how many were
// is printed. A kernel that is slow while the others are not is called again, and the second time
// counts.
void dc_race(int count, int warmup, int runs, int repeats, void (*call)(void *, int),
             void *context);

#endif
