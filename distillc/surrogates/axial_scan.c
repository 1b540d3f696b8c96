// The axial scan of one image on a CPU, forward and backward, channels innermost. Images run in
// threads of their own.
//
// Shapes: u, y, gy, gu (H, W, D); delta, gdelta (H, W, G); B, C, gB, gC (H, W, M, N); A, bias, gA
// (G); skip, gskip (D); all float32, packed. Head g has the D / G channels from g D / G on, group
// g M / G of B and C, and a direction: 0 down, 1 right, 2 up, 3 left. Along it (Mamba-2, arXiv
// 2405.21060, section 7):
//   dt = softplus(delta + bias),  h = exp(dt A) h + dt B u,  y = C h + skip u.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "scan_math.h"

enum { LINES = 8, WIDEST = 16 };  // lines walked side by side, channels of the widest vector

typedef struct {
  const float *u, *delta, *A, *B, *C, *skip, *bias;
  int height, width, channels, heads, states, weights;
} Scan;

typedef struct {
  const float *gy;
  float *gu, *gdelta, *gA, *gB, *gC, *gskip;
} Gradients;

// Lines of a head: position `begin + t along + s across` is step t of line s.
typedef struct {
  int64_t begin, along, across;
  int steps, lines;
} Walk;

// Some of these lines, for some channels of the head.
typedef struct {
  Walk walk;
  int head, group, channel, first, count;
} Strip;

static Walk walk(int direction, int height, int width) {
  Walk w = direction % 2 ? (Walk){0, 1, width, width, height} : (Walk){0, width, 1, height, width};
  if (direction >= 2) {
    w.begin = (w.steps - 1) * w.along;
    w.along = -w.along;
  }
  return w;
}

// Step sizes, decays and the derivatives of softplus for step t; returns where its first line is.
static inline int64_t step_sizes(const Scan *x, Strip at, int t, float *restrict dt,
                                 float *restrict decay, float *restrict slope) {
  const int64_t row = at.walk.begin + t * at.walk.along + at.first * at.walk.across;
  const float bias = x->bias[at.head], rate = x->A[at.head];
  float raw[LINES] = {0};
  for (int s = 0; s < at.count; s++)
    raw[s] = x->delta[(row + s * at.walk.across) * x->heads + at.head] + bias;
  for (int s = 0; s < LINES; s++) {
    const float e = exp_negative(raw[s] < 0.0f ? raw[s] : -raw[s]);
    dt[s] = (raw[s] > 0.0f ? raw[s] : 0.0f) + log1p_unit(e);
    decay[s] = exp_negative(dt[s] * rate);
    slope[s] = (raw[s] < 0.0f ? e : 1.0f) / (1.0f + e);
  }
  return row;
}

#define V 16
#include "axial_strip.h"
#define V 8
#include "axial_strip.h"
#define V 4
#include "axial_strip.h"
#define V 1
#include "axial_strip.h"

static int run(const Scan *x, const Gradients *r, float *y, const int *directions) {
  const size_t steps = x->height > x->width ? x->height : x->width;
  const size_t all = (size_t)LINES * x->states * WIDEST;
  float *h = malloc(all * (r ? steps + 2 : 1) * sizeof(float));
  if (!h) return 1;
  float *gh = r ? h + all * (steps + 1) : NULL;
  const int size = x->channels / x->heads, groups = x->weights / x->states;
  for (int g = 0; g < x->heads; g++) {
    Strip at = {walk(directions[g], x->height, x->width), g, g * groups / x->heads * x->states};
    for (at.first = 0; at.first < at.walk.lines; at.first += LINES) {
      const int left = at.walk.lines - at.first;
      at.count = left < LINES ? left : LINES;
      at.channel = g * size;
      for (int rest = size, width; rest > 0; rest -= width, at.channel += width) {
        width = rest >= 16 ? 16 : rest >= 8 ? 8 : rest >= 4 ? 4 : 1;
        if (width == 16) run16(x, r, at, h, gh, y);
        if (width == 8) run8(x, r, at, h, gh, y);
        if (width == 4) run4(x, r, at, h, gh, y);
        if (width == 1) run1(x, r, at, h, gh, y);
      }
    }
  }
  free(h);
  return 0;
}

int axial_forward(const float *u, const float *delta, const float *A, const float *B,
                  const float *C, const float *skip, const float *bias, float *y,
                  const int *directions, int height, int width, int channels, int heads, int groups,
                  int states) {
  const Scan x = {u,      delta, A,        B,     C,      skip,           bias,
                  height, width, channels, heads, states, groups * states};
  return run(&x, NULL, y, directions);
}

int axial_backward(const float *u, const float *delta, const float *A, const float *B,
                   const float *C, const float *skip, const float *bias, const float *gy, float *gu,
                   float *gdelta, float *gA, float *gB, float *gC, float *gskip,
                   const int *directions, int height, int width, int channels, int heads,
                   int groups, int states) {
  const Scan x = {u,      delta, A,        B,     C,      skip,           bias,
                  height, width, channels, heads, states, groups * states};
  const Gradients r = {gy, gu, gdelta, gA, gB, gC, gskip};
  const size_t pixels = (size_t)height * width;
  memset(gdelta, 0, pixels * heads * sizeof(float));
  memset(gA, 0, heads * sizeof(float));
  memset(gskip, 0, channels * sizeof(float));
  memset(gB, 0, pixels * x.weights * sizeof(float));
  memset(gC, 0, pixels * x.weights * sizeof(float));
  return run(&x, &r, NULL, directions);
}
