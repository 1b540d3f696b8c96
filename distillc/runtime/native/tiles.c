// Images of another size than the network's: mirrored at the edges, cut into tiles.
//
// 1. An image that is smaller than a tile is mirrored at its lower and right edges.
// 2. Tiles are spread evenly, so that neighbours share at least `overlap` pixels.
// 3. Of what two tiles share, the outer quarters are left to the other tile and the half between is
//    blended. So the result is what the whole image gives, but for rounding, where an output pixel
//    depends on nothing farther than overlap / 4; what looks farther (global attention) sees each
//    tile alone, and leaves no edge.
#include <stdlib.h>

#include "error.h"
#include "images.h"
#include "model.h"
#include "network.h"

enum { OVERLAP = 32 };

// The tiles along one axis.
typedef struct {
  int32_t image, tile, overlap, scale;
  int32_t steps;   // one tile less than there are
  float *weights;  // of each pixel of each tile of the result; over all tiles they sum to 1
} axis;

static int32_t padded(const axis *line) {
  return line->image > line->tile ? line->image : line->tile;
}

static int32_t origin(const axis *line, int32_t index) {
  const int64_t room = padded(line) - line->tile;
  return line->steps ? (int32_t)((2 * room * index + line->steps) / (2 * line->steps)) : 0;
}

// fminf and fmaxf are calls of libm on some machines.
static float smaller(float a, float b) { return a < b ? a : b; }

// How much a tile counts at a pixel of the result, by rule 3, before weights are made to sum to 1.
static float ramp(const axis *line, int32_t start, int64_t place) {
  const float quarter = (float)line->overlap * (float)line->scale / 4;
  const int64_t extent = (int64_t)line->tile * line->scale;
  float weight = 1;
  if (line->overlap && start)
    weight = smaller(weight, ((float)place + 0.5f - quarter) / (2 * quarter));
  if (line->overlap && start + line->tile < padded(line))
    weight = smaller(weight, ((float)(extent - place) - 0.5f - quarter) / (2 * quarter));
  return weight > 0 ? weight : 0;
}

static int open_axis(axis *line) {
  const int32_t stride = line->tile - line->overlap;
  line->steps = (padded(line) - line->tile + stride - 1) / stride;
  const size_t extent = (size_t)line->tile * (size_t)line->scale, count = (size_t)line->steps + 1;
  line->weights = malloc(count * extent * sizeof(float));
  float *total = calloc((size_t)padded(line) * (size_t)line->scale, sizeof(float));
  for (int pass = 0; line->weights && total && pass < 2; pass++)
    for (size_t index = 0; index < count; index++) {
      const int32_t start = origin(line, (int32_t)index);
      float *weight = line->weights + index * extent, *sum = total + (size_t)start * line->scale;
      for (size_t i = 0; i < extent; i++)
        if (pass)
          weight[i] /= sum[i];
        else
          sum[i] += weight[i] = ramp(line, start, (int64_t)i);
    }
  free(total);
  return total && line->weights;
}

// Adds what the network made of one tile to the result.
static void add_tile(const float *tile, float *result, const axis *rows, const axis *columns,
                     int32_t row, int32_t column, int32_t channels) {
  const size_t height = (size_t)rows->tile * (size_t)rows->scale,
               width = (size_t)columns->tile * (size_t)columns->scale,
               whole = (size_t)columns->image * (size_t)columns->scale,
               lines = (size_t)rows->image * (size_t)rows->scale,
               top = (size_t)origin(rows, row) * (size_t)rows->scale,
               left = (size_t)origin(columns, column) * (size_t)columns->scale;
  const float *down = rows->weights + (size_t)row * height,
              *across = columns->weights + (size_t)column * width;
  for (size_t c = 0; c < (size_t)channels; c++)
    for (size_t y = 0; y < height && top + y < lines; y++) {
      const float *from = tile + (c * height + y) * width;
      float *to = result + (c * lines + top + y) * whole + left;
      for (size_t x = 0; x < width && left + x < whole; x++)
        to[x] += from[x] * (down[y] * across[x]);
    }
}

static distillc_status run_tiles(distillc_model *model, const distillc_image *input, axis *rows,
                                 axis *columns, float *result) {
  const dc_network *net = &dc_the_network;
  for (int32_t row = 0; row <= rows->steps; row++)
    for (int32_t column = 0; column <= columns->steps; column++) {
      dc_read_window(input, net->input, origin(rows, row), origin(columns, column),
                     dc_model_input(model));
      const distillc_status status = dc_run_kernels(model, NULL);
      if (status) return status;
      add_tile(dc_model_output(model), result, rows, columns, row, column, net->output[0]);
    }
  return DISTILLC_OK;
}

distillc_status distillc_model_restore(distillc_model *model, const distillc_image *input,
                                       const distillc_image *output, int32_t overlap) {
  const dc_network *net = &dc_the_network;
  distillc_status status = dc_check_model(model);
  if (status) return status;
  if (!input || !output) return dc_fail(DISTILLC_BAD_ARGUMENT, "an image is null");
  const int32_t height = net->input[1], width = net->input[2], scale = net->output[1] / height;
  if (input->height == height && input->width == width)
    return distillc_model_run(model, input, output);
  const int32_t half = (height < width ? height : width) / 2;
  if (overlap < 0) overlap = half / 2 < OVERLAP ? half / 2 : OVERLAP;
  if (overlap > half)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "tiles of %dx%d cannot overlap by %d pixels: 0 to %d",
                   height, width, overlap, half);
  if (!scale || net->output[1] != height * scale || net->output[2] != width * scale)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "%s changes sizes by no whole factor: it takes no tiles",
                   net->name);
  if (input->height < 1 || input->width < 1 || input->height > INT32_MAX / scale ||
      input->width > INT32_MAX / scale)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the input is %d wide and %d high", input->width,
                   input->height);
  const int32_t given[] = {net->input[0], input->height, input->width},
                made[] = {net->output[0], input->height * scale, input->width * scale};
  distillc_image from = *input, to = *output;
  status = dc_check_image(&from, "input", given);
  if (!status) status = dc_check_image(&to, "output", made);
  size_t bytes;
  if (!status && (__builtin_mul_overflow((size_t)made[1], (size_t)made[2], &bytes) ||
                  __builtin_mul_overflow(bytes, sizeof(float) * (size_t)made[0], &bytes)))
    status = dc_fail(DISTILLC_BAD_ARGUMENT, "the output does not fit the memory");
  if (status) return status;

  axis rows = {input->height, height, overlap, scale, 0, NULL},
       columns = {input->width, width, overlap, scale, 0, NULL};
  float *result = calloc(bytes, 1);
  if (!result || !open_axis(&rows) || !open_axis(&columns))
    status = dc_fail(DISTILLC_NO_MEMORY, "no memory for an image of %dx%d", made[1], made[2]);
  if (!status && !(status = dc_take_model(model))) {
    status = run_tiles(model, &from, &rows, &columns, result);
    dc_give_model(model);
  }
  if (!status) dc_write_image(result, made, &to, &from);
  free(result);
  free(rows.weights);
  free(columns.weights);
  return status ? status : dc_succeed();
}
