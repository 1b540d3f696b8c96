// The public functions: models that are made, run and described.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"
#include "distillc.h"
#include "error.h"
#include "images.h"
#include "model.h"
#include "network.h"
#include "pool.h"
#include "weights.h"

enum { MOST_THREADS = 64 };

struct distillc_model {
  dc_pool *pool;
  dc_weights weights;
  uint8_t *arena;
  dc_tensor *tensors;
  dc_value *arguments;  // of all calls, one after the other
  atomic_flag busy;
#ifdef DISTILLC_CHECKED
  uint32_t alive;
#endif
};

#ifdef DISTILLC_CHECKED
enum { ALIVE = 0x64635f6d };
#endif

distillc_status dc_check_model(const distillc_model *model) {
  if (!model) return dc_fail(DISTILLC_BAD_ARGUMENT, "the model is null");
#ifdef DISTILLC_CHECKED
  if (model->alive != ALIVE) return dc_fail(DISTILLC_BAD_ARGUMENT, "the model was destroyed");
#endif
  return DISTILLC_OK;
}

static void prepare(distillc_model *model) {
  const dc_network *net = &dc_the_network;
  for (int i = 0; i < net->operand_count; i++) {
    const dc_operand *operand = &net->operands[i];
    uint8_t *base = operand->constant ? (uint8_t *)model->weights.bytes : model->arena;
    model->tensors[i] = (dc_tensor){
        base + operand->offset, DC_CPU, 0, operand->ndim, operand->code, operand->bits, 1,
        operand->shape,         NULL,   0};
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
  if (!model) return dc_fail(DISTILLC_BAD_ARGUMENT, "`model` is null");
  *model = NULL;
  const int threads = options && options->threads ? options->threads : net->threads;
  if (threads < 1 || threads > MOST_THREADS)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "%d threads asked for, 1 to %d are possible", threads,
                   MOST_THREADS);
  dc_weights weights;
  const distillc_status status = dc_open_weights(options ? options->weights : NULL, &weights);
  if (status) return status;
  size_t arguments = 0;
  for (int i = 0; i < net->call_count; i++) arguments += (size_t)net->calls[i].count;
  distillc_model *made = calloc(1, sizeof *made);
  if (!made) {
    dc_close_weights(&weights);
    return dc_fail(DISTILLC_NO_MEMORY, "no memory for a model");
  }
  made->weights = weights;
#ifdef DISTILLC_CHECKED
  made->alive = ALIVE;
#endif
  atomic_flag_clear(&made->busy);
  void *arena = NULL;
  if (!posix_memalign(&arena, DC_ALIGNMENT, net->arena_bytes)) made->arena = arena;
  made->tensors = calloc((size_t)net->operand_count, sizeof *made->tensors);
  made->arguments = calloc(arguments, sizeof *made->arguments);
  if (!made->arena || !made->tensors || !made->arguments) {
    distillc_model_destroy(made);
    return dc_fail(DISTILLC_NO_MEMORY, "no memory for %zu bytes of activations",
                   (size_t)net->arena_bytes);
  }
  int no_threads;
  made->pool = dc_pool_create(threads, &no_threads);
  if (!made->pool) {
    distillc_model_destroy(made);
    return no_threads ? dc_fail(DISTILLC_NO_THREADS, "cannot start %d threads", threads)
                      : dc_fail(DISTILLC_NO_MEMORY, "no memory for %d threads", threads);
  }
  prepare(made);
  *model = made;
  return dc_succeed();
}

void distillc_model_destroy(distillc_model *model) {
  if (!model || dc_check_model(model)) return;
  dc_pool_destroy(model->pool);
  free(model->arguments);
  free(model->tensors);
  free(model->arena);
  dc_close_weights(&model->weights);
#ifdef DISTILLC_CHECKED
  model->alive = 0;  // and its memory goes to nobody else: later calls find it
#else
  free(model);
#endif
}

distillc_status distillc_model_info(const distillc_model *model, distillc_info *info) {
  const dc_network *net = &dc_the_network;
  if (!info) return dc_fail(DISTILLC_BAD_ARGUMENT, "`info` is null");
  const distillc_status status = dc_check_model(model);
  if (status) return status;
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
  return dc_succeed();
}

distillc_status dc_run_kernels(distillc_model *model, double *milliseconds) {
  const dc_network *net = &dc_the_network;
  const dc_value *arguments = model->arguments;
  for (int i = 0; i < net->call_count; i++) {
    const dc_call *call = &net->calls[i];
    dc_value result = {DC_NONE, 0, {0}};
    const double start = milliseconds ? dc_now_ms() : 0;
    if (call->kernel(NULL, arguments, call->count, &result)) {
      const char *reason = dc_kernel_error();
      return dc_fail(DISTILLC_INTERNAL, "kernel %s failed: %s", call->name,
                     reason ? reason : "no memory");
    }
    if (milliseconds) milliseconds[i] = dc_now_ms() - start;
    arguments += call->count;
  }
  return DISTILLC_OK;
}

distillc_status dc_take_model(distillc_model *model) {
  if (atomic_flag_test_and_set(&model->busy))
    return dc_fail(DISTILLC_BUSY, "another thread runs this model: make one for each thread");
  dc_pool_enter(model->pool);
  return DISTILLC_OK;
}

void dc_give_model(distillc_model *model) {
  dc_pool_leave();
  atomic_flag_clear(&model->busy);
}

float *dc_model_input(distillc_model *model) {
  return model->tensors[dc_the_network.input_operand].data;
}

const float *dc_model_output(const distillc_model *model) {
  return model->tensors[dc_the_network.output_operand].data;
}

static distillc_status run(distillc_model *model, const distillc_image *input,
                           const distillc_image *output, double *milliseconds) {
  const dc_network *net = &dc_the_network;
  distillc_status status = dc_check_model(model);
  if (status) return status;
  if (!input || !output) return dc_fail(DISTILLC_BAD_ARGUMENT, "an image is null");
  distillc_image from = *input, to = *output;
  status = dc_check_image(&from, "input", net->input);
  if (!status) status = dc_check_image(&to, "output", net->output);
  if (status || (status = dc_take_model(model))) return status;
  dc_read_window(&from, net->input, 0, 0, dc_model_input(model));
  status = dc_run_kernels(model, milliseconds);
  if (!status)
    dc_write_rows(dc_model_output(model), (size_t)net->output[1] * (size_t)net->output[2],
                  net->output, 0, net->output[1], &to, &from);
  dc_give_model(model);
  return status ? status : dc_succeed();
}

distillc_status distillc_model_run(distillc_model *model, const distillc_image *input,
                                   const distillc_image *output) {
  return run(model, input, output, NULL);
}

distillc_status distillc_model_profile(distillc_model *model, const distillc_image *input,
                                       const distillc_image *output, double *milliseconds,
                                       int32_t kernels) {
  if (!milliseconds) return dc_fail(DISTILLC_BAD_ARGUMENT, "`milliseconds` is null");
  if (kernels != dc_the_network.call_count)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "there is room for %d times, the network has %d steps",
                   kernels, dc_the_network.call_count);
  return run(model, input, output, milliseconds);
}

const char *distillc_model_kernel(const distillc_model *model, int32_t step) {
  return !dc_check_model(model) && step >= 0 && step < dc_the_network.call_count
             ? dc_the_network.calls[step].name
             : NULL;
}
