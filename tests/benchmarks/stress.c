// Runs a network again and again: two models that some threads share, both of which must go on
// giving what the first run gave, in memory that does not grow.
//
//   stress THREADS RUNS [WEIGHTS]
//
// Prints one JSON object: runs, and resident KiB after a tenth of them and at the end.
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "distillc.h"

enum { MODELS = 2 };

static distillc_model *models[MODELS];
static distillc_info info;
static float *input, *expected;
static size_t output_bytes;
static atomic_int left, wrong, number;

static distillc_image image(float *data, int output) {
  return (distillc_image){.data = data,
                          .format = DISTILLC_NCHW_F32,
                          .width = output ? info.output_width : info.input_width,
                          .height = output ? info.output_height : info.input_height,
                          .channels = output ? info.output_channels : info.input_channels};
}

static void *work(void *unused) {
  (void)unused;
  float *own = malloc(output_bytes);
  const distillc_image from = image(input, 0), to = image(own, 1);
  distillc_model *model = models[atomic_fetch_add(&number, 1) % MODELS];
  while (atomic_fetch_sub(&left, 1) > 0) {
    distillc_status status;
    while ((status = distillc_model_run(model, &from, &to)) == DISTILLC_BUSY) {
    }
    if (status || memcmp(own, expected, output_bytes)) atomic_store(&wrong, 1);
  }
  free(own);
  return NULL;
}

static void run(int threads, int runs) {
  pthread_t *all = malloc(sizeof *all * (size_t)threads);
  atomic_store(&left, runs);
  for (int i = 0; i < threads; i++) pthread_create(&all[i], NULL, work, NULL);
  for (int i = 0; i < threads; i++) pthread_join(all[i], NULL);
  free(all);
}

static long resident_kib(void) {
  long kib = 0;
  char line[256];
  FILE *status = fopen("/proc/self/status", "r");
  while (status && fgets(line, sizeof line, status)) sscanf(line, "VmRSS: %ld", &kib);
  if (status) fclose(status);
  return kib;
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) return 2;
  const int threads = atoi(argv[1]), runs = atoi(argv[2]);
  const distillc_options options = {.threads = 2, .weights = argc == 4 ? argv[3] : NULL};
  for (int i = 0; i < MODELS; i++)
    if (distillc_model_create(&options, &models[i])) return 1;
  distillc_model_info(models[0], &info);
  const size_t count =
      (size_t)info.input_width * (size_t)info.input_height * (size_t)info.input_channels;
  output_bytes = sizeof(float) * (size_t)info.output_width * (size_t)info.output_height *
                 (size_t)info.output_channels;
  input = malloc(sizeof(float) * count);
  expected = malloc(output_bytes);
  for (size_t i = 0; i < count; i++) input[i] = (float)(i * 7919 % 1000) / 1000;
  const distillc_image from = image(input, 0), to = image(expected, 1);
  if (distillc_model_run(models[0], &from, &to)) return 1;
  run(threads, runs / 10);
  const long before = resident_kib();
  run(threads, runs - runs / 10);
  printf("{\"runs\": %d, \"wrong\": %d, \"before_kib\": %ld, \"after_kib\": %ld}\n", runs,
         atomic_load(&wrong), before, resident_kib());
  for (int i = 0; i < MODELS; i++) distillc_model_destroy(models[i]);
  free(input);
  free(expected);
  return atomic_load(&wrong);
}
