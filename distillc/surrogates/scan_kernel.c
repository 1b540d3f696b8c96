// The selective scan on a CPU, forward and backward, channels innermost so that they fill the
// vector lanes. Called once per sequence; sequences run in threads of their own.
//
// Shapes: u, delta, y, gy, gu, gdelta (L, D); A, gA (N, D); B, C, gB, gC (L, N); bias, skip, gskip
// (D); all float32, packed. Recurrence (Mamba, arXiv 2312.00752, section 3.2):
//   dt = softplus(delta + bias),  h = exp(dt A) h + dt B u,  y = C h + skip u.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "scan_math.h"

enum { CHUNK = 64 };

// The derivative of softplus. From the step size it would be 1 - exp(-dt), which loses all digits
// of a small one.
static inline float sigmoid(float x) {
  const float e = exp_negative(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}

static void step_sizes(const float *delta, const float *bias, float *dt, int D, int softplus) {
  if (!softplus) {
    for (int d = 0; d < D; d++) dt[d] = delta[d] + bias[d];
    return;
  }
  for (int d = 0; d < D; d++) {
    const float x = delta[d] + bias[d];
    const float size = x < 0.0f ? -x : x;
    dt[d] = (x > 0.0f ? x : 0.0f) + log1p_unit(exp_negative(-size));
  }
}

// One step of the state; `before` and `after` may be the same.
static inline void step(const float *u, const float *dt, const float *A, const float *B,
                        const float *before, float *after, int D, int N) {
  for (int n = 0; n < N; n++) {
    const float b = B[n];
    const float *a = A + n * D, *h = before + n * D;
    float *out = after + n * D;
    for (int d = 0; d < D; d++) out[d] = exp_negative(dt[d] * a[d]) * h[d] + dt[d] * b * u[d];
  }
}

static inline void emit(const float *h, const float *C, const float *u, const float *skip, float *y,
                        int D, int N) {
  for (int d = 0; d < D; d++) y[d] = skip[d] * u[d];
  for (int n = 0; n < N; n++)
    for (int d = 0; d < D; d++) y[d] += C[n] * h[n * D + d];
}

int scan_forward(const float *u, const float *delta, const float *A, const float *B, const float *C,
                 const float *skip, const float *bias, float *y, int64_t L, int D, int N,
                 int softplus, int reverse) {
  float *h = calloc((size_t)(N + 1) * D, sizeof(float));
  if (!h) return 1;
  float *dt = h + (size_t)N * D;
  for (int64_t s = 0; s < L; s++) {
    const int64_t t = reverse ? L - 1 - s : s;
    step_sizes(delta + t * D, bias, dt, D, softplus);
    step(u + t * D, dt, A, B + t * N, h, h, D, N);
    emit(h, C + t * N, u + t * D, skip, y + t * D, D, N);
  }
  free(h);
  return 0;
}

// Gradients; also writes y, which the caller needs for the gate. States are kept at chunk borders
// and recomputed within a chunk, so memory is (L / CHUNK + CHUNK) N D, and L D for the step sizes.
int scan_backward(const float *u, const float *delta, const float *A, const float *B,
                  const float *C, const float *skip, const float *bias, const float *gy, float *y,
                  float *gu, float *gdelta, float *gA, float *gB, float *gC, float *gskip,
                  int64_t L, int D, int N, int softplus, int reverse) {
  const size_t state = (size_t)N * D;
  const int64_t chunks = (L + CHUNK - 1) / CHUNK;
  float *borders = calloc((size_t)(chunks + 1) * state, sizeof(float));
  float *inside = malloc((CHUNK + 1) * state * sizeof(float));
  float *gh = calloc(state, sizeof(float));
  float *dt = malloc((size_t)L * D * sizeof(float));
  if (!borders || !inside || !gh || !dt) {
    free(borders), free(inside), free(gh), free(dt);
    return 1;
  }
  memset(inside, 0, state * sizeof(float));
  for (int64_t s = 0; s < L; s++) {
    const int64_t t = reverse ? L - 1 - s : s;
    if (s % CHUNK == 0) memcpy(borders + s / CHUNK * state, inside, state * sizeof(float));
    step_sizes(delta + t * D, bias, dt + t * D, D, softplus);
    step(u + t * D, dt + t * D, A, B + t * N, inside, inside, D, N);
    emit(inside, C + t * N, u + t * D, skip, y + t * D, D, N);
  }
  memset(gA, 0, state * sizeof(float));
  memset(gskip, 0, D * sizeof(float));
  for (int64_t chunk = chunks - 1; chunk >= 0; chunk--) {
    const int64_t begin = chunk * CHUNK, end = begin + CHUNK < L ? begin + CHUNK : L;
    memcpy(inside, borders + chunk * state, state * sizeof(float));
    for (int64_t s = begin; s < end; s++) {
      const int64_t t = reverse ? L - 1 - s : s;
      float *before = inside + (s - begin) * state;
      step(u + t * D, dt + t * D, A, B + t * N, before, before + state, D, N);
    }
    for (int64_t s = end - 1; s >= begin; s--) {
      const int64_t t = reverse ? L - 1 - s : s;
      const float *before = inside + (s - begin) * state, *after = before + state;
      const float *ut = u + t * D, *dtt = dt + t * D, *gyt = gy + t * D;
      float *gut = gu + t * D, *gdt = gdelta + t * D;
      for (int d = 0; d < D; d++) {
        gut[d] = gyt[d] * skip[d];
        gskip[d] += gyt[d] * ut[d];
        gdt[d] = 0.0f;
      }
      for (int n = 0; n < N; n++) {
        const float b = B[t * N + n], c = C[t * N + n];
        const float *a = A + n * D, *h0 = before + n * D, *h1 = after + n * D;
        float *g = gh + n * D, *ga = gA + n * D;
        float sum_b = 0.0f, sum_c = 0.0f;
        for (int d = 0; d < D; d++) {
          const float grad = g[d] + gyt[d] * c;
          const float decay = exp_negative(dtt[d] * a[d]);
          const float through = grad * decay * h0[d];
          sum_c += gyt[d] * h1[d];
          sum_b += grad * dtt[d] * ut[d];
          gut[d] += grad * dtt[d] * b;
          gdt[d] += grad * b * ut[d] + through * a[d];
          ga[d] += through * dtt[d];
          g[d] = grad * decay;
        }
        gB[t * N + n] = sum_b;
        gC[t * N + n] = sum_c;
      }
      if (softplus)
        for (int d = 0; d < D; d++) gdt[d] *= sigmoid(delta[t * D + d] + bias[d]);
    }
  }
  free(borders), free(inside), free(gh), free(dt);
  return 0;
}
