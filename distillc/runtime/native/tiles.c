// Images of another size than the network's: mirrored at the edges, cut into tiles.
//
// 1. An image that is smaller than a tile is mirrored at its lower and right edges.
// 2. Tiles are spread evenly, so that neighbours share at least `overlap` pixels.
// 3. Of what two tiles share, the outer quarters are left to the other tile and the half between is
//    blended. So the result is what the whole image gives, but for rounding, where an output pixel
//    depends on nothing farther than overlap / 4; what looks farther (global attention) sees only
//    its tile, and leaves no edge.
// 4. A row of tiles is blended across, then down, and what no later row touches is written at once.
//    `distillc/runtime/bands.py` does the second half itself and gives the same bits: so products
//    and sums are rounded one by one.
#include <stdlib.h>
#include <string.h>

#include "error.h"
#include "images.h"
#include "model.h"
#include "network.h"

#pragma STDC FP_CONTRACT OFF

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

// The rows of the result that one row of tiles touches, in planes.
typedef struct {
  size_t channels, height, width;
  float *across, *down;  // blended across; and down, with what the rows of tiles before left
} band;

// Adds what the network made of one tile.
static void add_tile(const float *tile, const band *rows, const axis *columns, int32_t column) {
  const size_t width = (size_t)columns->tile * (size_t)columns->scale,
               left = (size_t)origin(columns, column) * (size_t)columns->scale;
  const float *weights = columns->weights + (size_t)column * width;
  for (size_t line = 0; line < rows->channels * rows->height; line++) {
    const float *from = tile + line * width;
    float *to = rows->across + line * rows->width + left;
    for (size_t x = 0; x < width && left + x < rows->width; x++) to[x] += from[x] * weights[x];
  }
}

static void add_row(const band *rows, const float *weights) {
  for (size_t line = 0; line < rows->channels * rows->height; line++)
    for (size_t x = 0; x < rows->width; x++)
      rows->down[line * rows->width + x] +=
          rows->across[line * rows->width + x] * weights[line % rows->height];
}

// Moves the rows below the first `count` up.
static void move_up(const band *rows, size_t count) {
  const size_t plane = rows->height * rows->width, gone = count * rows->width;
  for (size_t c = 0; c < rows->channels; c++) {
    float *own = rows->down + c * plane;
    memmove(own, own + gone, (plane - gone) * sizeof(float));
    memset(own + plane - gone, 0, gone * sizeof(float));
  }
}

static distillc_status run_tiles(distillc_model *model, const distillc_image *input,
                                 const distillc_image *output, const axis *rows,
                                 const axis *columns, const band *made) {
  const dc_network *net = &dc_the_network;
  const int32_t shape[] = {net->output[0], output->height, output->width}, scale = rows->scale;
  const size_t plane = made->height * made->width;
  for (int32_t row = 0; row <= rows->steps; row++) {
    const int32_t top = origin(rows, row);
    memset(made->across, 0, made->channels * plane * sizeof(float));
    for (int32_t column = 0; column <= columns->steps; column++) {
      dc_read_window(input, net->input, top, origin(columns, column), dc_model_input(model));
      const distillc_status status = dc_run_kernels(model, NULL);
      if (status) return status;
      add_tile(dc_model_output(model), made, columns, column);
    }
    add_row(made, rows->weights + (size_t)row * made->height);
    const int32_t end = row < rows->steps ? origin(rows, row + 1) : rows->image;
    dc_write_rows(made->down, plane, shape, top * scale, (end - top) * scale, output, input);
    if (row < rows->steps) move_up(made, (size_t)(end - top) * (size_t)scale);
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
    return dc_fail(DISTILLC_BAD_ARGUMENT, "%s cannot be tiled: it changes sizes by no whole factor",
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
  if (status) return status;

  axis rows = {input->height, height, overlap, scale, 0, NULL},
       columns = {input->width, width, overlap, scale, 0, NULL};
  band touched = {(size_t)made[0], (size_t)net->output[1], (size_t)made[2], NULL, NULL};
  size_t count;
  if (!__builtin_mul_overflow(touched.channels * touched.height, touched.width, &count)) {
    touched.across = calloc(count, sizeof(float));
    touched.down = calloc(count, sizeof(float));
  }
  if (!touched.across || !touched.down || !open_axis(&rows) || !open_axis(&columns))
    status = dc_fail(DISTILLC_NO_MEMORY, "no memory for an image of %dx%d", made[1], made[2]);
  if (!status && !(status = dc_take_model(model))) {
    status = run_tiles(model, &from, &to, &rows, &columns, &touched);
    dc_give_model(model);
  }
  free(touched.across);
  free(touched.down);
  free(rows.weights);
  free(columns.weights);
  return status ? status : dc_succeed();
}
