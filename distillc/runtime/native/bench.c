// One compiled network as a program that needs nothing: checks it, times it, restores pictures.
//
//   NAME-bench [--threads N] [--warmup N] [--runs N] [--overlap N] [--picture IN OUT]
//
// Checks first, on an image made of numbers by rule, what torch made of it when the network was
// compiled. Pictures are .png, .jpg (to read), or .npy (float32, C,H,W), of any size; a PNG has 16
// bits where the input has more than 8. Prints one JSON object: milliseconds of creating the model,
// of every run and of every step, and memory. Exits with 1 where something fails, 2 for wrong
// arguments, 3 where the check fails.
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "distillc.h"
#include "memory.h"
#include "network.h"
#include "pictures.h"

#define FAIL(code, ...) (fprintf(stderr, __VA_ARGS__), fputc('\n', stderr), exit(code))

typedef struct {
  int threads, warmup, runs, overlap;
  const char *input, *output;
} arguments;

static int number(const char *name, const char *text) {
  char *end;
  const long found = text ? strtol(text, &end, 10) : 0;
  if (!text || !*text || *end || found < 0 || found > 1000000)
    FAIL(2, "%s takes a number from 0, not %s", name, text ? text : "nothing");
  return (int)found;
}

static arguments parse(int argc, char **argv) {
  arguments given = {.warmup = 3, .runs = 20, .overlap = -1};
  for (int i = 1; i < argc; i++) {
    const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : NULL;
    int *place = !strcmp(name, "--threads")   ? &given.threads
                 : !strcmp(name, "--warmup")  ? &given.warmup
                 : !strcmp(name, "--runs")    ? &given.runs
                 : !strcmp(name, "--overlap") ? &given.overlap
                                              : NULL;
    if (place) {
      *place = number(name, value);
      i++;
    } else if (!strcmp(name, "--picture") && i + 2 < argc) {
      given.input = argv[++i];
      given.output = argv[++i];
    } else {
      FAIL(2,
           "%s: unknown, or its value is missing\nusage: %s [--threads N] [--warmup N] [--runs N] "
           "[--overlap N] [--picture IN OUT]",
           name, argv[0]);
    }
  }
  return given;
}

// The image of the check; `distillc/codegen/self_check.py` has the same rule.
static float pattern(uint32_t place) {
  place = (place + 1) * UINT32_C(2654435761);
  place ^= place >> 15;
  place *= UINT32_C(2246822519);
  place ^= place >> 13;
  return (float)(place >> 8) / 16777216.0f;
}

static dc_picture picture_of(int channels, int height, int width) {
  dc_picture made;
  const char *wrong = dc_new_picture(&made, channels, height, width);
  if (wrong) FAIL(1, "%dx%d: %s", width, height, wrong);
  return made;
}

static distillc_image image_of(const dc_picture *picture) {
  return (distillc_image){.data = picture->values,
                          .format = DISTILLC_NCHW_F32,
                          .width = picture->width,
                          .height = picture->height,
                          .channels = picture->channels};
}

static double check(const dc_picture *output) {
  const dc_check *wanted = &dc_the_check;
  const uint64_t total =
      (uint64_t)output->channels * (uint64_t)output->height * (uint64_t)output->width;
  double worst = 0;
  for (uint64_t i = 0; i < wanted->count; i++) {
    const double error =
        fabs((double)output->values[i * total / wanted->count] - wanted->values[i]);
    if (!(error <= worst)) worst = error;  // what is not a number stays
  }
  return worst;
}

static int by_value(const void *a, const void *b) {
  const double first = *(const double *)a, second = *(const double *)b;
  return (first > second) - (first < second);
}

// Of sorted numbers, between neighbours where the place is none.
static double percentile(const double *sorted, int count, double share) {
  const double place = share * (count - 1);
  const int below = (int)place;
  return below + 1 < count ? sorted[below] + (place - below) * (sorted[below + 1] - sorted[below])
                           : sorted[count - 1];
}

static void print_times(const char *name, const double *ms, int count) {
  printf(", \"%s\": [", name);
  for (int i = 0; i < count; i++) printf("%s%.6g", i ? ", " : "", ms[i]);
  printf("]");
}

static void restore(distillc_model *model, const distillc_info *info, const arguments *given) {
  dc_picture from;
  const char *wrong = dc_read_picture(given->input, &from);
  if (!wrong) wrong = dc_convert_picture(&from, info->input_channels);
  if (wrong) FAIL(1, "%s: %s", given->input, wrong);
  if (from.clear) fprintf(stderr, "%s: its transparency is left out\n", given->input);
  const int scale = info->output_height / info->input_height;
  const int same = from.height == info->input_height && from.width == info->input_width;
  dc_picture to =
      picture_of(info->output_channels, same ? info->output_height : scale * from.height,
                 same ? info->output_width : scale * from.width);
  to.bits = from.bits;
  const distillc_image input = image_of(&from), output = image_of(&to);
  const double start = dc_now_ms();
  if (distillc_model_restore(model, &input, &output, given->overlap))
    FAIL(1, "%s: %s", given->input, distillc_last_error());
  const double spent = dc_now_ms() - start;
  if ((wrong = dc_write_picture(given->output, &to))) FAIL(1, "%s: %s", given->output, wrong);
  printf(", \"picture\": {\"width\": %d, \"height\": %d, \"ms\": %.6g}", to.width, to.height,
         spent);
  free(from.values);
  free(to.values);
}

int main(int argc, char **argv) {
  const arguments given = parse(argc, argv);
  const distillc_options options = {.threads = given.threads};
  distillc_model *model;
  distillc_info info;
  const double start = dc_now_ms();
  if (distillc_model_create(&options, &model) || distillc_model_info(model, &info))
    FAIL(1, "%s", distillc_last_error());
  const double created = dc_now_ms() - start;
  const size_t before = dc_peak_bytes();

  dc_picture from = picture_of(info.input_channels, info.input_height, info.input_width);
  dc_picture to = picture_of(info.output_channels, info.output_height, info.output_width);
  const uint32_t count = (uint32_t)(from.channels * from.height * from.width);
  for (uint32_t i = 0; i < count; i++) from.values[i] = pattern(i);
  const distillc_image input = image_of(&from), output = image_of(&to);
  if (distillc_model_run(model, &input, &output)) FAIL(1, "%s", distillc_last_error());
  const double error = check(&to), tolerance = (double)dc_the_check.tolerance;
  if (!(error <= tolerance))
    FAIL(3, "%s: %g off what torch computes, %g is allowed: this build is wrong for this machine",
         info.name, error, tolerance);
  const size_t peak = dc_peak_bytes();

  double *ms = malloc(sizeof *ms * (size_t)(given.runs + info.kernels));
  if (!ms) FAIL(1, "no memory");
  for (int run = -given.warmup; run < given.runs; run++) {
    const double begin = dc_now_ms();
    if (distillc_model_run(model, &input, &output)) FAIL(1, "%s", distillc_last_error());
    if (run >= 0) ms[run] = dc_now_ms() - begin;
  }
  printf("{\"name\": \"%s\", \"target\": \"%s\", \"width\": %d, \"height\": %d, \"threads\": %d",
         info.name, info.target, info.input_width, info.input_height, info.threads);
  printf(", \"max_error\": %.3g, \"tolerance\": %.3g, \"create_ms\": %.6g", error, tolerance,
         created);
  if (given.runs) {
    print_times("ms", ms, given.runs);
    qsort(ms, (size_t)given.runs, sizeof *ms, by_value);
    printf(", \"median_ms\": %.6g, \"p10_ms\": %.6g, \"p90_ms\": %.6g",
           percentile(ms, given.runs, 0.5), percentile(ms, given.runs, 0.1),
           percentile(ms, given.runs, 0.9));
    double *steps = ms + given.runs;
    if (distillc_model_profile(model, &input, &output, steps, info.kernels))
      FAIL(1, "%s", distillc_last_error());
    printf(", \"steps\": [");
    for (int i = 0; i < info.kernels; i++)
      printf("%s{\"kernel\": \"%s\", \"ms\": %.4g}", i ? ", " : "", distillc_model_kernel(model, i),
             steps[i]);
    printf("]");
  }
  printf(", \"peak_bytes\": %zu, \"run_bytes\": %zu, \"planned_bytes\": %zu, \"weight_bytes\": %zu",
         peak, peak - before, info.planned_bytes, info.weight_bytes);
  if (given.input) restore(model, &info, &given);
  printf("}\n");
  distillc_model_destroy(model);
  free(ms);
  free(from.values);
  free(to.values);
  return fflush(stdout) ? 1 : 0;
}
