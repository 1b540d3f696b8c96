// The public functions: models, and images in the caller's layouts.
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "distillc.h"
#include "network.h"
#include "pool.h"

enum { MOST_THREADS = 64 };

struct distillc_model {
  dc_pool *pool;
  uint8_t *arena;
  dc_tensor *tensors;
  dc_value *arguments;  // of all calls, one after the other
  atomic_flag busy;
};

static _Thread_local char last_error[256];

#define FAIL(status, ...) (snprintf(last_error, sizeof last_error, __VA_ARGS__), status)

static distillc_status succeed(void) {
  last_error[0] = 0;
  return DISTILLC_OK;
}

const char *distillc_last_error(void) { return last_error; }

static uint64_t checksum(const uint8_t *bytes, uint64_t count) {
  // Words times odd numbers: a bit that changes is seen wherever it is, and so are words that swap.
  uint64_t sum = 0, word;
  for (uint64_t i = 0; i < count / sizeof word; i++) {
    memcpy(&word, bytes + i * sizeof word, sizeof word);
    sum += word * (2 * i + 1);
  }
  return sum;
}

static void prepare(distillc_model *model) {
  const dc_network *net = &dc_the_network;
  for (int i = 0; i < net->operand_count; i++) {
    const dc_operand *operand = &net->operands[i];
    uint8_t *base = operand->constant ? (uint8_t *)net->weights : model->arena;
    model->tensors[i] = (dc_tensor){base + operand->offset, DC_CPU,          0,
                                    operand->ndim,          operand->code,   operand->bits,
                                    1,                      operand->shape,  NULL,
                                    0};
  }
  dc_value *argument = model->arguments;
  for (int i = 0; i < net->call_count; i++)
    for (int j = 0; j < net->calls[i].count; j++) {
      argument->type = DC_TENSOR_POINTER;
      argument++->value.pointer = &model->tensors[net->calls[i].operands[j]];
    }
}

distillc_status distillc_model_create(const distillc_options *options, distillc_model **model) {
  const dc_network *net = &dc_the_network;
  if (!model) return FAIL(DISTILLC_BAD_ARGUMENT, "`model` is null");
  *model = NULL;
  const int threads = options && options->threads ? options->threads : net->threads;
  if (threads < 1 || threads > MOST_THREADS)
    return FAIL(DISTILLC_BAD_ARGUMENT, "%d threads asked for, 1 to %d are possible", threads,
                MOST_THREADS);
  if (checksum(net->weights, net->weight_bytes) != net->weight_checksum)
    return FAIL(DISTILLC_BAD_WEIGHTS, "the weights of %s are damaged: install it anew", net->name);
  size_t arguments = 0;
  for (int i = 0; i < net->call_count; i++) arguments += (size_t)net->calls[i].count;
  distillc_model *made = calloc(1, sizeof *made);
  if (!made) return FAIL(DISTILLC_NO_MEMORY, "no memory for a model");
  atomic_flag_clear(&made->busy);
  void *arena = NULL;
  if (!posix_memalign(&arena, DC_ALIGNMENT, net->arena_bytes)) made->arena = arena;
  made->tensors = calloc((size_t)net->operand_count, sizeof *made->tensors);
  made->arguments = calloc(arguments, sizeof *made->arguments);
  if (!made->arena || !made->tensors || !made->arguments) {
    distillc_model_destroy(made);
    return FAIL(DISTILLC_NO_MEMORY, "no memory for %zu bytes of activations",
                (size_t)net->arena_bytes);
  }
  int no_threads;
  made->pool = dc_pool_create(threads, &no_threads);
  if (!made->pool) {
    distillc_model_destroy(made);
    return no_threads ? FAIL(DISTILLC_NO_THREADS, "the system starts no %d threads", threads)
                      : FAIL(DISTILLC_NO_MEMORY, "no memory for %d threads", threads);
  }
  prepare(made);
  *model = made;
  return succeed();
}

void distillc_model_destroy(distillc_model *model) {
  if (!model) return;
  dc_pool_destroy(model->pool);
  free(model->arguments);
  free(model->tensors);
  free(model->arena);
  free(model);
}

distillc_status distillc_model_info(const distillc_model *model, distillc_info *info) {
  const dc_network *net = &dc_the_network;
  if (!model || !info) return FAIL(DISTILLC_BAD_ARGUMENT, "a pointer is null");
  *info = (distillc_info){
      .api_version = DISTILLC_API_VERSION,
      .name = net->name,
      .target = net->target,
      .input_channels = net->input[0],
      .input_height = net->input[1],
      .input_width = net->input[2],
      .output_channels = net->output[0],
      .output_height = net->output[1],
      .output_width = net->output[2],
      .threads = dc_pool_threads(model->pool),
      .kernels = net->call_count,
      .weight_bytes = net->weight_bytes,
      .planned_bytes = net->arena_bytes,
  };
  return succeed();
}

// Checks an image and gives its strides their values.
static distillc_status check(distillc_image *image, const char *what, const int32_t shape[3]) {
  if (!image->data) return FAIL(DISTILLC_BAD_ARGUMENT, "the %s has no data", what);
  if (image->format < DISTILLC_NCHW_F32 || image->format > DISTILLC_RGBA8)
    return FAIL(DISTILLC_BAD_ARGUMENT, "the %s has the unknown format %d", what, image->format);
  const int bytes = image->format == DISTILLC_RGBA8;
  if (bytes && shape[0] != 3)
    return FAIL(DISTILLC_BAD_ARGUMENT, "the %s has %d channels: RGBA8 stands for three", what,
                shape[0]);
  const int32_t channels = bytes ? 4 : shape[0];
  if (image->channels != channels || image->height != shape[1] || image->width != shape[2])
    return FAIL(DISTILLC_BAD_ARGUMENT,
                "the %s is %d wide, %d high with %d channels; the network takes %d, %d, %d", what,
                image->width, image->height, image->channels, shape[2], shape[1], channels);
  const size_t pixel = bytes ? 4 : sizeof(float) * (size_t)(image->format ? channels : 1);
  const size_t row = pixel * (size_t)image->width;
  if (!image->row_stride) image->row_stride = row;
  const size_t plane = image->row_stride * (size_t)image->height;
  if (!image->plane_stride) image->plane_stride = plane;
  if (image->row_stride < row || image->plane_stride < plane)
    return FAIL(DISTILLC_BAD_ARGUMENT, "the rows or planes of the %s overlap", what);
  if (!bytes && ((uintptr_t)image->data | image->row_stride | image->plane_stride) % sizeof(float))
    return FAIL(DISTILLC_BAD_ARGUMENT, "the floats of the %s do not lie at multiples of 4", what);
  return DISTILLC_OK;
}

static void read_image(const distillc_image *image, const int32_t shape[3], float *to) {
  const size_t width = (size_t)shape[2];
  for (int c = 0; c < shape[0]; c++)
    for (int y = 0; y < shape[1]; y++, to += width) {
      const uint8_t *row = (const uint8_t *)image->data + image->row_stride * (size_t)y;
      if (image->format == DISTILLC_NCHW_F32) {
        memcpy(to, row + image->plane_stride * (size_t)c, width * sizeof(float));
      } else if (image->format == DISTILLC_NHWC_F32) {
        const float *from = (const float *)row + c;
        for (size_t x = 0; x < width; x++) to[x] = from[x * (size_t)shape[0]];
      } else {
        for (size_t x = 0; x < width; x++) to[x] = (float)row[4 * x + (size_t)c] / 255.0f;
      }
    }
}

static uint8_t to_byte(float value) {
  // Comparisons with a value that is not a number are false.
  return !(value > 0.0f) ? 0 : value >= 1.0f ? 255 : (uint8_t)(value * 255.0f + 0.5f);
}

static void write_image(const float *from, const int32_t shape[3], const distillc_image *image,
                        const distillc_image *alpha) {
  const size_t width = (size_t)shape[2];
  for (int c = 0; c < shape[0]; c++)
    for (int y = 0; y < shape[1]; y++, from += width) {
      uint8_t *row = (uint8_t *)image->data + image->row_stride * (size_t)y;
      if (image->format == DISTILLC_NCHW_F32) {
        memcpy(row + image->plane_stride * (size_t)c, from, width * sizeof(float));
      } else if (image->format == DISTILLC_NHWC_F32) {
        float *to = (float *)row + c;
        for (size_t x = 0; x < width; x++) to[x * (size_t)shape[0]] = from[x];
      } else {
        for (size_t x = 0; x < width; x++) row[4 * x + (size_t)c] = to_byte(from[x]);
      }
    }
  if (image->format != DISTILLC_RGBA8) return;
  const int copied = alpha->format == DISTILLC_RGBA8 && alpha->width == image->width &&
                     alpha->height == image->height;
  for (int y = 0; y < shape[1]; y++) {
    uint8_t *row = (uint8_t *)image->data + image->row_stride * (size_t)y;
    const uint8_t *own = (const uint8_t *)alpha->data + alpha->row_stride * (size_t)y;
    for (size_t x = 0; x < width; x++) row[4 * x + 3] = copied ? own[4 * x + 3] : 255;
  }
}

static distillc_status run_kernels(distillc_model *model, double *milliseconds) {
  const dc_network *net = &dc_the_network;
  const dc_value *arguments = model->arguments;
  for (int i = 0; i < net->call_count; i++) {
    const dc_call *call = &net->calls[i];
    dc_value result = {DC_NONE, 0, {0}};
    const double start = milliseconds ? dc_now_ms() : 0;
    if (call->kernel(NULL, arguments, call->count, &result)) {
      const char *reason = dc_kernel_error();
      return FAIL(DISTILLC_INTERNAL, "kernel %s failed: %s", call->name,
                  reason ? reason : "no memory");
    }
    if (milliseconds) milliseconds[i] = dc_now_ms() - start;
    arguments += call->count;
  }
  return DISTILLC_OK;
}

static distillc_status run(distillc_model *model, const distillc_image *input,
                           const distillc_image *output, double *milliseconds) {
  const dc_network *net = &dc_the_network;
  if (!model || !input || !output) return FAIL(DISTILLC_BAD_ARGUMENT, "a pointer is null");
  distillc_image from = *input, to = *output;
  distillc_status status = check(&from, "input", net->input);
  if (!status) status = check(&to, "output", net->output);
  if (status) return status;
  if (atomic_flag_test_and_set(&model->busy))
    return FAIL(DISTILLC_BUSY, "another thread runs this model: make one for each thread");
  read_image(&from, net->input, model->tensors[net->input_operand].data);
  dc_pool_enter(model->pool);
  status = run_kernels(model, milliseconds);
  dc_pool_leave();
  if (!status) write_image(model->tensors[net->output_operand].data, net->output, &to, &from);
  atomic_flag_clear(&model->busy);
  return status ? status : succeed();
}

distillc_status distillc_model_run(distillc_model *model, const distillc_image *input,
                                   const distillc_image *output) {
  return run(model, input, output, NULL);
}

distillc_status distillc_model_profile(distillc_model *model, const distillc_image *input,
                                       const distillc_image *output, double *milliseconds,
                                       int32_t kernels) {
  if (!milliseconds) return FAIL(DISTILLC_BAD_ARGUMENT, "`milliseconds` is null");
  if (kernels != dc_the_network.call_count)
    return FAIL(DISTILLC_BAD_ARGUMENT, "there is room for %d times, the network has %d steps",
                kernels, dc_the_network.call_count);
  return run(model, input, output, milliseconds);
}

const char *distillc_model_kernel(const distillc_model *model, int32_t step) {
  return model && step >= 0 && step < dc_the_network.call_count ? dc_the_network.calls[step].name
                                                                : NULL;
}
