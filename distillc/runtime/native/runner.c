// Runs compiled networks: once to a file, or several in turn against the clock.
//
//   runner SHAPE OVERLAP INPUT OUTPUT WARMUP RUNS MODEL.so [MODEL.so ...]
//
// SHAPE is C,H,W, of any size: see `distillc_model_restore` for it and OVERLAP. INPUT holds float32
// images of that shape, one or more; OUTPUT receives what the first model makes of each. The first
// image serves for the clock. Prints one JSON object: milliseconds of every run of every model, and
// the peak of memory in use.
//
//   runner --kernels LIBRARY.so SHAPES OUTPUTS WARMUP RUNS NAME [NAME ...]
//
// Runs single kernels of a library in turn: see `dc_race_kernels`.
//
// DISTILLC_THREADS says how many threads to use.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "distillc.h"
#include "kernels.h"
#include "memory.h"
#include "race.h"

static void *load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) FAIL("%s", dlerror());
  return library;
}

static void *find(void *library, const char *name) {
  void *symbol = dlsym(library, name);
  if (!symbol) FAIL("%s", dlerror());
  return symbol;
}

static int threads(void) {
  const char *text = getenv("DISTILLC_THREADS");
  return text ? atoi(text) : 1;
}

typedef struct {
  distillc_model *model;
  distillc_status (*restore)(distillc_model *, const distillc_image *, const distillc_image *,
                             int32_t);
  const char *(*last_error)(void);
  distillc_image input, output;
  int32_t overlap;
} network;

static distillc_image packed(int channels, int height, int width, float *data) {
  return (distillc_image){.data = data,
                          .format = DISTILLC_NCHW_F32,
                          .width = width,
                          .height = height,
                          .channels = channels};
}

static size_t image_bytes(const distillc_image *image) {
  return sizeof(float) * (size_t)image->width * (size_t)image->height * (size_t)image->channels;
}

static void run_network(void *context, int index) {
  network *net = (network *)context + index;
  if (net->restore(net->model, &net->input, &net->output, net->overlap))
    FAIL("%s", net->last_error());
}

// Where the weights of MODEL.so are if they are in a file of their own, MODEL.weights; else null.
static const char *weights_of(const char *path) {
  static char name[4096];
  const char *end = strrchr(path, '.');
  snprintf(name, sizeof name, "%.*s.weights", end ? (int)(end - path) : 0, path);
  return access(name, R_OK) ? NULL : name;
}

static network open_network(const char *path, distillc_image input, int32_t overlap) {
  void *library = load(path);
  network net = {.input = input, .overlap = overlap};
  distillc_status (*create)(const distillc_options *, distillc_model **);
  distillc_status (*describe)(const distillc_model *, distillc_info *);
  *(void **)&create = find(library, "distillc_model_create");
  *(void **)&describe = find(library, "distillc_model_info");
  *(void **)&net.restore = find(library, "distillc_model_restore");
  *(void **)&net.last_error = find(library, "distillc_last_error");
  const distillc_options options = {threads(), weights_of(path)};
  distillc_info info;
  if (create(&options, &net.model) || describe(net.model, &info)) FAIL("%s", net.last_error());
  const int scale = info.output_height / info.input_height;
  const int same = input.height == info.input_height && input.width == info.input_width;
  net.output = packed(info.output_channels, same ? info.output_height : scale * input.height,
                      same ? info.output_width : scale * input.width, NULL);
  net.output.data = dc_allocate(image_bytes(&net.output));
  return net;
}

static int next_image(FILE *source, const distillc_image *image, const char *path) {
  const size_t got = fread(image->data, 1, image_bytes(image), source);
  if (got && got != image_bytes(image)) FAIL("%s is shorter than the input", path);
  return got > 0;
}

static int run_networks(int argc, char **argv) {
  if (argc < 8) FAIL("usage: SHAPE OVERLAP INPUT OUTPUT WARMUP RUNS MODEL.so ...");
  int channels, height, width;
  if (sscanf(argv[1], "%d,%d,%d", &channels, &height, &width) != 3)
    FAIL("%s is not a shape C,H,W", argv[1]);
  distillc_image input = packed(channels, height, width, NULL);
  input.data = dc_allocate(image_bytes(&input));
  FILE *source = fopen(argv[3], "rb"), *sink = fopen(argv[4], "wb");
  if (!source) FAIL("%s cannot be read", argv[3]);
  if (!sink) FAIL("%s cannot be written", argv[4]);
  if (!next_image(source, &input, argv[3])) FAIL("%s holds no input", argv[3]);
  const int count = argc - 7;
  network *networks = dc_allocate(sizeof *networks * (size_t)count);
  for (int i = 0; i < count; i++) networks[i] = open_network(argv[7 + i], input, atoi(argv[2]));
  printf("{");
  dc_race(count, atoi(argv[5]), atoi(argv[6]), 0, run_network, networks);
  do {
    run_network(networks, 0);
    const distillc_image *output = &networks[0].output;
    if (fwrite(output->data, 1, image_bytes(output), sink) != image_bytes(output))
      FAIL("%s cannot be written", argv[4]);
  } while (next_image(source, &input, argv[3]));
  if (fclose(sink)) FAIL("%s cannot be written", argv[4]);
  printf(", \"peak_bytes\": %zu}\n", dc_peak_bytes());
  return 0;
}

static dc_kernel *find_kernel(void *library, const char *name) {
  dc_kernel *kernel;
  *(void **)&kernel = dlsym(library, name);
  return kernel;
}

static int run_kernels(int argc, char **argv) {
  if (argc < 4) FAIL("usage: --kernels LIBRARY SHAPES OUTPUTS WARMUP RUNS NAME ...");
  dc_kernel_source source = {.find = find_kernel, .context = load(argv[2])};
  *(void **)&source.create = find(source.context, "dc_pool_create");
  *(void **)&source.enter = find(source.context, "dc_pool_enter");
  dc_race_kernels(argc - 3, argv + 3, threads(), &source);
  return 0;
}

int main(int argc, char **argv) {
  return argc > 1 && !strcmp(argv[1], "--kernels") ? run_kernels(argc, argv)
                                                   : run_networks(argc, argv);
}
