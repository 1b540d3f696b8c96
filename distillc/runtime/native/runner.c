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
// Runs single kernels of a library in turn, all with the same operands: random float32 of SHAPES,
// say 1,48,64;48,48;1,48,64, of which the last OUTPUTS are written. Prints the milliseconds and, for
// each kernel, the largest difference of its outputs from the first one's, over their largest value.
//
// DISTILLC_THREADS says how many threads to use.
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "distillc.h"
#include "memory.h"
#include "network.h"
#include "pool.h"

enum { MOST_OPERANDS = 64, MOST_DIMENSIONS = 8 };

#define FAIL(...) (fprintf(stderr, "runner: " __VA_ARGS__), fputc('\n', stderr), exit(1))

static void *allocate(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, DC_ALIGNMENT, bytes ? bytes : 1)) FAIL("no memory for a tensor");
  return memory;
}

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

// Calls each of `count` things in turn, round after round, and prints the milliseconds of each.
static void race(int count, int warmup, int runs, void (*call)(void *, int), void *context) {
  double *ms = allocate(sizeof *ms * (size_t)count * (size_t)runs);
  for (int run = -warmup; run < runs; run++)
    for (int i = 0; i < count; i++) {
      const double start = dc_now_ms();
      call(context, i);
      if (run >= 0) ms[i * runs + run] = dc_now_ms() - start;
    }
  printf("\"ms\": [");
  for (int i = 0; i < count; i++) {
    printf(i ? ", [" : "[");
    for (int run = 0; run < runs; run++) printf("%s%.6g", run ? ", " : "", ms[i * runs + run]);
    printf("]");
  }
  printf("]");
  free(ms);
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
  if (net->restore(net->model, &net->input, &net->output, net->overlap)) FAIL("%s", net->last_error());
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
  const distillc_options options = {threads()};
  distillc_info info;
  if (create(&options, &net.model) || describe(net.model, &info)) FAIL("%s", net.last_error());
  const int scale = info.output_height / info.input_height;
  const int same = input.height == info.input_height && input.width == info.input_width;
  net.output = packed(info.output_channels, same ? info.output_height : scale * input.height,
                      same ? info.output_width : scale * input.width, NULL);
  net.output.data = allocate(image_bytes(&net.output));
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
    FAIL("%s is no shape C,H,W", argv[1]);
  distillc_image input = packed(channels, height, width, NULL);
  input.data = allocate(image_bytes(&input));
  FILE *source = fopen(argv[3], "rb"), *sink = fopen(argv[4], "wb");
  if (!source) FAIL("%s cannot be read", argv[3]);
  if (!sink) FAIL("%s cannot be written", argv[4]);
  if (!next_image(source, &input, argv[3])) FAIL("%s holds no input", argv[3]);
  const int count = argc - 7;
  network *networks = allocate(sizeof *networks * (size_t)count);
  for (int i = 0; i < count; i++) networks[i] = open_network(argv[7 + i], input, atoi(argv[2]));
  printf("{");
  race(count, atoi(argv[5]), atoi(argv[6]), run_network, networks);
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

typedef struct {
  dc_kernel **kernels;
  char **names;
  dc_value arguments[MOST_OPERANDS];
  int count;
} kernel_run;

static void run_kernel(void *context, int index) {
  kernel_run *run = context;
  dc_value result = {DC_NONE, 0, {0}};
  if (run->kernels[index](NULL, run->arguments, run->count, &result))
    FAIL("kernel %s failed", run->names[index]);
}

static size_t read_shape(char *text, int64_t *shape, int32_t *dimensions) {
  size_t count = 1;
  char *rest = NULL;
  for (char *word = strtok_r(text, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
    if (*dimensions == MOST_DIMENSIONS) FAIL("more than %d dimensions", MOST_DIMENSIONS);
    shape[(*dimensions)++] = atoll(word);
    count *= (size_t)atoll(word);
  }
  return count;
}

// The largest difference over the largest value, where both are finite; 1 where only one is.
static double difference(const float *expected, const float *found, size_t count) {
  double largest = 1e-30, most = 0;
  for (size_t i = 0; i < count; i++) {
    if (!isfinite(expected[i]) != !isfinite(found[i])) return 1;
    if (!isfinite(expected[i])) continue;
    largest = fmax(largest, fabs(expected[i]));
    most = fmax(most, fabs((double)expected[i] - found[i]));
  }
  return most / largest;
}

static int run_kernels(int argc, char **argv) {
  if (argc < 8) FAIL("usage: --kernels LIBRARY SHAPES OUTPUTS WARMUP RUNS NAME ...");
  void *library = load(argv[2]);
  static int64_t shapes[MOST_OPERANDS][MOST_DIMENSIONS];
  static dc_tensor tensors[MOST_OPERANDS];
  size_t counts[MOST_OPERANDS], written = 0;
  kernel_run run = {.names = argv + 7};
  char *rest = NULL;
  srand(1);
  for (char *word = strtok_r(argv[3], ";", &rest); word; word = strtok_r(NULL, ";", &rest)) {
    if (run.count == MOST_OPERANDS) FAIL("more than %d operands", MOST_OPERANDS);
    dc_tensor *tensor = &tensors[run.count];
    *tensor = (dc_tensor){.device_type = DC_CPU, .code = 2, .bits = 32, .lanes = 1};
    tensor->shape = shapes[run.count];
    counts[run.count] = read_shape(word, shapes[run.count], &tensor->ndim);
    float *data = tensor->data = allocate(sizeof(float) * counts[run.count]);
    for (size_t i = 0; i < counts[run.count]; i++) data[i] = 2.0f * (float)rand() / RAND_MAX - 1;
    run.arguments[run.count].type = DC_TENSOR_POINTER;
    run.arguments[run.count++].value.pointer = tensor;
  }
  const int first = run.count - atoi(argv[4]), kernels = argc - 7;
  if (first < 0) FAIL("%s of %d operands cannot be outputs", argv[4], run.count);
  for (int i = first; i < run.count; i++) written += counts[i];
  run.kernels = allocate(sizeof *run.kernels * (size_t)kernels);
  for (int i = 0; i < kernels; i++) {
    char name[256];
    snprintf(name, sizeof name, "__tvm_ffi_%s", run.names[i]);
    *(void **)&run.kernels[i] = find(library, name);
  }
  dc_pool *(*create)(int, int *);
  void (*enter)(dc_pool *);
  *(void **)&create = find(library, "dc_pool_create");
  *(void **)&enter = find(library, "dc_pool_enter");
  int no_threads;
  dc_pool *pool = create(threads(), &no_threads);
  if (!pool) FAIL("no memory or threads for %d threads", threads());
  enter(pool);
  printf("{");
  race(kernels, atoi(argv[5]), atoi(argv[6]), run_kernel, &run);
  printf(", \"errors\": [");
  float *expected = allocate(sizeof(float) * written), *found = allocate(sizeof(float) * written);
  for (int i = 0; i < kernels; i++) {
    // Not a number in every byte: what a kernel leaves out is seen.
    for (int j = first; j < run.count; j++)
      memset(tensors[j].data, 0xff, sizeof(float) * counts[j]);
    run_kernel(&run, i);
    float *to = i ? found : expected;
    for (int j = first; j < run.count; to += counts[j++])
      memcpy(to, tensors[j].data, sizeof(float) * counts[j]);
    printf("%s%.6g", i ? ", " : "", i ? difference(expected, found, written) : 0.0);
  }
  printf("]}\n");
  return 0;
}

int main(int argc, char **argv) {
  return argc > 1 && !strcmp(argv[1], "--kernels") ? run_kernels(argc, argv)
                                                   : run_networks(argc, argv);
}
