/* Restores a binary PPM image with the network of a bundle, and says how long that took.
 *
 *   cc -O2 -I BUNDLE BUNDLE/restore.c BUNDLE/model.so -Wl,-rpath,BUNDLE -o restore
 *   ./restore input.ppm output.ppm [BUNDLE/model.weights]
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "distillc.h"

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

/* Reads the pixels of a PPM as RGBA; null where it is none. */
static uint8_t *read_ppm(const char *path, int32_t *width, int32_t *height) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  uint8_t *pixels = NULL;
  if (fscanf(file, "P6 %d %d 255", width, height) == 2 && fgetc(file) != EOF && *width > 0 &&
      *height > 0 && *width < 1 << 14 && *height < 1 << 14)
    pixels = malloc((size_t)*width * (size_t)*height * 4);
  for (long i = 0; pixels && i < (long)*width * *height; i++) {
    if (fread(pixels + 4 * i, 1, 3, file) != 3) {
      free(pixels);
      pixels = NULL;
    } else {
      pixels[4 * i + 3] = 255;
    }
  }
  fclose(file);
  return pixels;
}

static int write_ppm(const char *path, const uint8_t *pixels, int width, int height) {
  FILE *file = fopen(path, "wb");
  if (!file) return 0;
  fprintf(file, "P6\n%d %d\n255\n", width, height);
  for (long i = 0; i < (long)width * height; i++) fwrite(pixels + 4 * i, 1, 3, file);
  return fclose(file) == 0;
}

int main(int argc, char **argv) {
  if (argc < 3 || argc > 4) return fail(argv[0], "give an input and an output, both .ppm");
  const distillc_options options = {.weights = argv[3]}; /* null behind the last argument */
  distillc_model *model;
  distillc_info info;
  if (distillc_model_create(&options, &model) || distillc_model_info(model, &info))
    return fail("no model", distillc_last_error());
  int32_t width, height;
  uint8_t *in = read_ppm(argv[1], &width, &height);
  if (!in) return fail(argv[1], "no PPM file");
  const int scale = info.output_height / info.input_height;
  uint8_t *out = malloc((size_t)(width * scale) * (size_t)(height * scale) * 4);
  if (!out) return fail(argv[2], "no memory");
  const distillc_image input = {in, DISTILLC_RGBA8, width, height, 4, 0, 0};
  const distillc_image output = {out, DISTILLC_RGBA8, width * scale, height * scale, 4, 0, 0};
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  if (distillc_model_restore(model, &input, &output, -1))
    return fail("restore", distillc_last_error());
  clock_gettime(CLOCK_MONOTONIC, &end);
  if (!write_ppm(argv[2], out, width * scale, height * scale))
    return fail(argv[2], "cannot be written");
  printf("%s, %d threads: %.1f ms\n", info.name, info.threads,
         1e3 * (double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_nsec - start.tv_nsec));
  distillc_model_destroy(model);
  free(in);
  free(out);
  return 0;
}
