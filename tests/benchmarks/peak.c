// What one machine can do at most: fused multiply-adds in registers, and a triad over arrays.
//
//   peak fma THREADS            GFLOP/s of all threads together
//   peak triad THREADS BYTES    GB/s of all threads together, a = b + s c, BYTES per thread in all
//
// Each thread works on its own data. A round is as short as a clock can time well, and the best of
// many counts: other programs take whole time slices, and some round falls between them.

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
enum { LANES = 16, CHAINS = 24 };
#elif defined(__aarch64__)
enum { LANES = 4, CHAINS = 24 };
#else
enum { LANES = 8, CHAINS = 12 };
#endif

enum { ROUNDS = 60 };
static const double SECONDS = 2e-3;

typedef float vector __attribute__((vector_size(LANES * 4)));

static int threads;
static size_t count;  // floats of one array of one thread
static long repeats;
static pthread_barrier_t barrier;
// The workers read the clock: the thread that counts rounds may wake late.
static double began[64], ended[64];

static double Now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec + time.tv_nsec * 1e-9;
}

// Independent chains: enough to keep every unit busy for the latency of one operation.
__attribute__((noinline)) static float Fma(long steps, float seed) {
  vector sum[CHAINS], factor, term;
  for (int lane = 0; lane < LANES; ++lane) factor[lane] = seed, term[lane] = 1 - seed;
  for (int chain = 0; chain < CHAINS; ++chain) sum[chain] = term * (float)chain;
  for (long step = 0; step < steps; ++step) {
#pragma clang loop unroll(full)
    for (int chain = 0; chain < CHAINS; ++chain) sum[chain] = sum[chain] * factor + term;
  }
  vector total = sum[0];
  for (int chain = 1; chain < CHAINS; ++chain) total += sum[chain];
  float result = 0;
  for (int lane = 0; lane < LANES; ++lane) result += total[lane];
  return result;
}

__attribute__((noinline)) static void Triad(float *restrict a, const float *restrict b,
                                            const float *restrict c, float s) {
  for (size_t i = 0; i < count; ++i) a[i] = b[i] + s * c[i];
}

static void *Work(void *slot) {
  const size_t self = (size_t)slot;
  volatile float sink = 0.5f;
  float *data = NULL;
  if (count) {
    data = aligned_alloc(4096, 3 * count * sizeof(float));
    memset(data, 0, 3 * count * sizeof(float));
  }
  for (int round = 0; round <= ROUNDS; ++round) {
    pthread_barrier_wait(&barrier);
    began[self] = Now();
    if (!count) {
      sink = Fma(repeats, 0.5f);
    } else {
      for (long i = 0; i < repeats; ++i) Triad(data, data + count, data + 2 * count, sink);
    }
    ended[self] = Now();
    pthread_barrier_wait(&barrier);
  }
  free(data);
  return NULL;
}

// Seconds of the best round with this many repeats.
static double Measure(long number) {
  pthread_t team[64];
  repeats = number;
  pthread_barrier_init(&barrier, NULL, threads + 1);
  for (int i = 0; i < threads; ++i) pthread_create(&team[i], NULL, Work, (void *)(size_t)i);
  double best = 1e30;
  for (int round = 0; round <= ROUNDS; ++round) {
    pthread_barrier_wait(&barrier);
    pthread_barrier_wait(&barrier);
    double first = began[0], last = ended[0];
    for (int i = 1; i < threads; ++i) {
      if (began[i] < first) first = began[i];
      if (ended[i] > last) last = ended[i];
    }
    const double seconds = last - first;
    if (round && seconds < best) best = seconds;
  }
  for (int i = 0; i < threads; ++i) pthread_join(team[i], NULL);
  pthread_barrier_destroy(&barrier);
  return best;
}

int main(int argc, char **argv) {
  if (argc < 3 || (threads = atoi(argv[2])) < 1 || threads > 64) return 2;
  if (!strcmp(argv[1], "triad")) count = strtoull(argv[3], NULL, 10) / 3 / sizeof(float);
  long number = 1;
  double seconds = Measure(number);
  while (seconds < SECONDS) seconds = Measure(number *= 2);
  double work = count ? 3.0 * sizeof(float) * count : 2.0 * LANES * CHAINS;
  printf("%.3f\n", work * number * threads / seconds * 1e-9);
  return 0;
}
