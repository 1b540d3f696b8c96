#include "kernels.h"

#include <math.h>
#include <string.h>

#include "race.h"

enum { MOST_OPERANDS = 64, MOST_DIMENSIONS = 8, MOST_REPEATS = 8 };

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

void dc_race_kernels(int count, char **words, int threads, const dc_kernel_source *source) {
  if (count < 5) FAIL("usage: SHAPES OUTPUTS WARMUP RUNS NAME ...");
  static int64_t shapes[MOST_OPERANDS][MOST_DIMENSIONS];
  static dc_tensor tensors[MOST_OPERANDS];
  size_t counts[MOST_OPERANDS], written = 0;
  kernel_run run = {.names = words + 4};
  char *rest = NULL;
  srand(1);
  for (char *word = strtok_r(words[0], ";", &rest); word; word = strtok_r(NULL, ";", &rest)) {
    if (run.count == MOST_OPERANDS) FAIL("more than %d operands", MOST_OPERANDS);
    dc_tensor *tensor = &tensors[run.count];
    *tensor = (dc_tensor){.device_type = DC_CPU, .code = 2, .bits = 32, .lanes = 1};
    tensor->shape = shapes[run.count];
    counts[run.count] = read_shape(word, shapes[run.count], &tensor->ndim);
    float *data = tensor->data = dc_allocate(sizeof(float) * counts[run.count]);
    for (size_t i = 0; i < counts[run.count]; i++) data[i] = 2.0f * (float)rand() / RAND_MAX - 1;
    run.arguments[run.count].type = DC_TENSOR_POINTER;
    run.arguments[run.count++].value.pointer = tensor;
  }
  const int first = run.count - atoi(words[1]), kernels = count - 4;
  if (first < 0) FAIL("%s of %d operands cannot be outputs", words[1], run.count);
  for (int i = first; i < run.count; i++) written += counts[i];
  run.kernels = dc_allocate(sizeof *run.kernels * (size_t)kernels);
  for (int i = 0; i < kernels; i++) {
    char name[256];
    snprintf(name, sizeof name, "__tvm_ffi_%s", run.names[i]);
    run.kernels[i] = source->find(source->context, name);
    if (!run.kernels[i]) FAIL("there is no kernel %s", run.names[i]);
  }
  int no_threads;
  dc_pool *pool = source->create(threads, &no_threads);
  if (!pool) FAIL("no memory or threads for %d threads", threads);
  source->enter(pool);
  printf("{");
  dc_race(kernels, atoi(words[2]), atoi(words[3]), MOST_REPEATS, run_kernel, &run);
  printf(", \"errors\": [");
  float *expected = dc_allocate(sizeof(float) * written);
  float *found = dc_allocate(sizeof(float) * written);
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
}
