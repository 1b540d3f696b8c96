/* Restores a binary PPM image with the network of a bundle, and says how long that took.
 *
 *   cc -O2 -I BUNDLE restore.c BUNDLE/model.so -Wl,-rpath,BUNDLE -o restore
 *   ./restore input.ppm output.ppm
 *
 * The image must have the size that the bundle was built for.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "distillc.h"

static int fail(const char *what, const char *why) {
  fprintf(stderr, "%s: %s\n", what, why);
  return 1;
}

/* Reads the pixels of a PPM of the size that is expected, as RGBA; null where it is another. */
static uint8_t *read_ppm(const char *path, int width, int height) {
  int found_width, found_height;
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  uint8_t *pixels = NULL;
  if (fscanf(file, "P6 %d %d 255", &found_width, &found_height) == 2 && fgetc(file) != EOF &&
      found_width == width && found_height == height)
    pixels = malloc((size_t)width * (size_t)height * 4);
  for (long i = 0; pixels && i < (long)width * height; i++) {
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
  if (argc != 3) return fail(argv[0], "give an input and an output, both .ppm");
  distillc_model *model;
  distillc_info info;
  if (distillc_model_create(NULL, &model) || distillc_model_info(model, &info))
    return fail("no model", distillc_last_error());
  uint8_t *in = read_ppm(argv[1], info.input_width, info.input_height);
  uint8_t *out = malloc((size_t)info.output_width * (size_t)info.output_height * 4);
  if (!in || !out) return fail(argv[1], "not a PPM file of the network's size");
  const distillc_image input = {in, DISTILLC_RGBA8, info.input_width, info.input_height, 4, 0, 0};
  const distillc_image output = {out, DISTILLC_RGBA8, info.output_width, info.output_height, 4,
                                 0,   0};
  struct timespec start, end;
  clock_gettime(CLOCK_MONOTONIC, &start);
  if (distillc_model_run(model, &input, &output)) return fail("run", distillc_last_error());
  clock_gettime(CLOCK_MONOTONIC, &end);
  if (!write_ppm(argv[2], out, info.output_width, info.output_height))
    return fail(argv[2], "cannot be written");
  printf("%s, %d threads: %.1f ms\n", info.name, info.threads,
         1e3 * (double)(end.tv_sec - start.tv_sec) + 1e-6 * (double)(end.tv_nsec - start.tv_nsec));
  distillc_model_destroy(model);
  free(in);
  free(out);
  return 0;
}
