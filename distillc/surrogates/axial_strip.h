// One strip of LINES lines for V neighbouring channels of a head: included once for each V.
#define NAMED(name, width) name##width
#define NAME(name, width) NAMED(name, width)
#define VECTOR NAME(vector, V)
typedef float VECTOR __attribute__((vector_size(V * 4), aligned(4)));

static inline float NAME(sum, V)(VECTOR v) {
  float total = 0.0f;
  for (int i = 0; i < V; i++) total += v[i];
  return total;
}

// Writes `y`; or, where `keep`, all states as (steps + 1, LINES, N, V) to `h`.
static void NAME(forward, V)(const Scan *x, Strip at, float *h, int keep, float *y) {
  const int N = x->states;
  const VECTOR skip = *(const VECTOR *)(x->skip + at.channel);
  float dt[LINES], decay[LINES], slope[LINES];
  memset(h, 0, sizeof(VECTOR) * LINES * N);
  for (int t = 0; t < at.walk.steps; t++) {
    const int64_t row = step_sizes(x, at, t, dt, decay, slope);
    float *next = keep ? h + LINES * N * V : h;
    for (int s = 0; s < at.count; s++) {
      const int64_t p = row + s * at.walk.across;
      const float *b = x->B + p * x->weights + at.group, *c = x->C + p * x->weights + at.group;
      const VECTOR u = *(const VECTOR *)(x->u + p * x->channels + at.channel);
      VECTOR out = skip * u;
      for (int n = 0; n < N; n++) {
        const int i = (s * N + n) * V;
        const VECTOR state = decay[s] * *(VECTOR *)(h + i) + dt[s] * b[n] * u;
        *(VECTOR *)(next + i) = state;
        out += c[n] * state;
      }
      if (y) *(VECTOR *)(y + p * x->channels + at.channel) = out;
    }
    h = next;
  }
}

// Reads the states that `forward` kept; `gh` holds (LINES, N, V).
static void NAME(backward, V)(const Scan *x, const Gradients *r, Strip at, const float *states,
                              float *gh) {
  const int N = x->states;
  const float rate = x->A[at.head];
  const VECTOR skip = *(const VECTOR *)(x->skip + at.channel);
  VECTOR gskip = {0};
  float dt[LINES], decay[LINES], slope[LINES], gA = 0.0f;
  memset(gh, 0, sizeof(VECTOR) * LINES * N);
  for (int t = at.walk.steps - 1; t >= 0; t--) {
    const int64_t row = step_sizes(x, at, t, dt, decay, slope);
    const float *before = states + (size_t)t * LINES * N * V, *after = before + LINES * N * V;
    for (int s = 0; s < at.count; s++) {
      const int64_t p = row + s * at.walk.across, w = p * x->weights + at.group;
      const VECTOR u = *(const VECTOR *)(x->u + p * x->channels + at.channel);
      const VECTOR gy = *(const VECTOR *)(r->gy + p * x->channels + at.channel);
      VECTOR into = {0}, through = {0};
      float step = 0.0f;
      gskip += gy * u;
      for (int n = 0; n < N; n++) {
        const int i = (s * N + n) * V;
        const VECTOR grad = *(VECTOR *)(gh + i) + x->C[w + n] * gy;
        const float sum_b = NAME(sum, V)(grad * u);
        *(VECTOR *)(gh + i) = decay[s] * grad;
        through += grad * *(const VECTOR *)(before + i);
        into += x->B[w + n] * grad;
        step += x->B[w + n] * sum_b;
        r->gB[w + n] += dt[s] * sum_b;
        r->gC[w + n] += NAME(sum, V)(gy * *(const VECTOR *)(after + i));
      }
      const float faded = decay[s] * NAME(sum, V)(through);
      *(VECTOR *)(r->gu + p * x->channels + at.channel) = skip * gy + dt[s] * into;
      r->gdelta[p * x->heads + at.head] += (step + rate * faded) * slope[s];
      gA += dt[s] * faded;
    }
  }
  r->gA[at.head] += gA;
  *(VECTOR *)(r->gskip + at.channel) += gskip;
}

static void NAME(run, V)(const Scan *x, const Gradients *r, Strip at, float *h, float *gh,
                         float *y) {
  NAME(forward, V)(x, at, h, r != NULL, y);
  if (r) NAME(backward, V)(x, r, at, h, gh);
}
#undef VECTOR
#undef NAME
#undef NAMED
#undef V
