#include "images.h"

#include "bytes.h"
#include "error.h"

enum { ADDRESS_BITS = 39 };  // of a process on Android, the least of all targets

// How the values of a format lie.
typedef struct {
  size_t bytes;  // of a value
  int planar, rgba;
} layout;

static const layout layouts[] = {
    [DISTILLC_NCHW_F32] = {4, 1, 0}, [DISTILLC_NHWC_F32] = {4, 0, 0}, [DISTILLC_RGBA8] = {1, 0, 1},
    [DISTILLC_NCHW_U16] = {2, 1, 0}, [DISTILLC_NHWC_U16] = {2, 0, 0}, [DISTILLC_RGBA16] = {2, 0, 1},
};

enum { FORMATS = sizeof layouts / sizeof *layouts, MOST_WHITE = 65535 };

// Whether an image ends before its addresses do: strides that say otherwise are wrong.
static int in_memory(const distillc_image *image, size_t row, int32_t planes) {
  size_t rows, others, bytes, end;
  return !__builtin_mul_overflow(image->row_stride, (size_t)image->height - 1, &rows) &&
         !__builtin_mul_overflow(image->plane_stride, (size_t)planes - 1, &others) &&
         !__builtin_add_overflow(rows, others, &bytes) &&
         !__builtin_add_overflow(bytes, row, &bytes) && bytes <= (size_t)1 << ADDRESS_BITS &&
         !__builtin_add_overflow((uintptr_t)image->data, bytes, &end);
}

distillc_status dc_check_image(distillc_image *image, const char *what, const int32_t shape[3]) {
  if (!image->data) return dc_fail(DISTILLC_BAD_ARGUMENT, "the %s has no data", what);
  if ((unsigned)image->format >= FORMATS)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the %s has the unknown format %d", what, image->format);
  const layout own = layouts[image->format];
  if (own.rgba && shape[0] != 3)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the %s has %d channels: RGBA stands for three", what,
                   shape[0]);
  if (image->white < 0 || image->white > MOST_WHITE || (image->white && own.bytes != 2))
    return dc_fail(DISTILLC_BAD_ARGUMENT,
                   "the %s has %d for white: 16 bits have 1 to 65535, other formats 0", what,
                   image->white);
  if (own.bytes != 2) image->white = own.bytes == 1 ? 255 : 1;
  if (!image->white) image->white = MOST_WHITE;
  const int32_t channels = own.rgba ? 4 : shape[0];
  if (image->channels != channels || image->height != shape[1] || image->width != shape[2])
    return dc_fail(DISTILLC_BAD_ARGUMENT,
                   "the %s is %d wide, %d high with %d channels; the network takes %d, %d, %d",
                   what, image->width, image->height, image->channels, shape[2], shape[1],
                   channels);
  const size_t row = own.bytes * (size_t)(own.planar ? 1 : channels) * (size_t)image->width;
  if (!image->row_stride) image->row_stride = row;
  size_t plane;
  if (__builtin_mul_overflow(image->row_stride, (size_t)image->height, &plane))
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the rows of the %s do not fit the memory", what);
  if (!image->plane_stride) image->plane_stride = plane;
  if (image->row_stride < row || image->plane_stride < plane)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the rows or planes of the %s overlap", what);
  if (!in_memory(image, row, own.planar ? channels : 1))
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the strides of the %s do not fit the memory", what);
  if (((uintptr_t)image->data | image->row_stride | image->plane_stride) % own.bytes)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the values of the %s do not lie at multiples of %zu",
                   what, own.bytes);
  return DISTILLC_OK;
}

// Where pixel `place` of a mirrored line lies: 0 1 2 2 1 0 0 1 ...
static size_t mirror(int64_t place, int32_t extent) {
  place %= 2 * (int64_t)extent;
  return (size_t)(place < extent ? place : 2 * (int64_t)extent - 1 - place);
}

// The row of a channel, at its first value; values of one channel are `step` apart.
static uint8_t *row_of(const distillc_image *image, size_t y, int32_t channel, size_t *step) {
  const layout own = layouts[image->format];
  *step = own.planar ? 1 : (size_t)image->channels;
  return (uint8_t *)image->data + image->row_stride * y +
         (own.planar ? image->plane_stride : own.bytes) * (size_t)channel;
}

static float read_value(const distillc_image *image, const uint8_t *row, size_t place) {
  switch (layouts[image->format].bytes) {
  case 1:
    return (float)row[place] / 255.0f;
  case 2:
    return (float)((const uint16_t *)row)[place] / (float)image->white;
  default:
    return ((const float *)row)[place];
  }
}

static void write_value(const distillc_image *image, uint8_t *row, size_t place, float value) {
  switch (layouts[image->format].bytes) {
  case 1:
    row[place] = dc_to_byte(value);
    break;
  case 2:
    ((uint16_t *)row)[place] = dc_to_whole(value, image->white);
    break;
  default:
    ((float *)row)[place] = value;
  }
}

void dc_read_window(const distillc_image *image, const int32_t shape[3], int32_t top, int32_t left,
                    float *to) {
  const int64_t width = shape[2], inside = image->width - (int64_t)left;
  for (int32_t c = 0; c < shape[0]; c++) {
    for (int32_t y = 0; y < shape[1]; y++, to += width) {
      size_t step;
      const uint8_t *row = row_of(image, mirror((int64_t)top + y, image->height), c, &step);
      int64_t x = 0;
      for (; x < width && x < inside; x++)
        to[x] = read_value(image, row, step * (size_t)(left + x));
      for (; x < width; x++) to[x] = read_value(image, row, step * mirror(left + x, image->width));
    }
  }
}

// Where a pixel of an enlarged line lies in the line: between two neighbours.
typedef struct {
  size_t first, second;
  float share;  // of the second
} between;

static between place_in(int32_t place, int32_t factor, int32_t extent) {
  const int64_t twice = 2 * (int64_t)place + 1 - factor, at = twice > 0 ? twice : 0;
  const int64_t first = at / (2 * factor), last = extent - 1;
  return (between){(size_t)first, (size_t)(first < last ? first + 1 : last),
                   (float)(at % (2 * factor)) / (float)(2 * factor)};
}

// The opacity of pixels of a result, from an image of the same size or smaller by a whole factor.
static void write_alpha(const distillc_image *image, int32_t y, const distillc_image *from) {
  const int32_t factor = from->width ? image->width / from->width : 0;
  const int known = layouts[from->format].rgba && factor && image->width == factor * from->width &&
                    image->height == factor * from->height;
  size_t step, other;
  uint8_t *row = row_of(image, (size_t)y, 3, &step);
  if (!known) {
    for (int32_t x = 0; x < image->width; x++) write_value(image, row, step * (size_t)x, 1);
    return;
  }
  const between down = place_in(y, factor, from->height);
  const uint8_t *upper = row_of(from, down.first, 3, &other),
                *lower = row_of(from, down.second, 3, &other);
  for (int32_t x = 0; x < image->width; x++) {
    const between across = place_in(x, factor, from->width);
    float ends[2];
    for (int i = 0; i < 2; i++) {
      const uint8_t *line = i ? lower : upper;
      ends[i] = read_value(from, line, other * across.first) * (1 - across.share) +
                read_value(from, line, other * across.second) * across.share;
    }
    write_value(image, row, step * (size_t)x, ends[0] * (1 - down.share) + ends[1] * down.share);
  }
}

void dc_write_rows(const float *from, size_t plane, const int32_t shape[3], int32_t first,
                   int32_t count, const distillc_image *image, const distillc_image *alpha) {
  const size_t width = (size_t)shape[2];
  for (int32_t y = 0; y < count; y++) {
    for (int32_t c = 0; c < shape[0]; c++) {
      size_t step;
      uint8_t *row = row_of(image, (size_t)(first + y), c, &step);
      const float *values = from + plane * (size_t)c + width * (size_t)y;
      for (size_t x = 0; x < width; x++) write_value(image, row, step * x, values[x]);
    }
    if (layouts[image->format].rgba) write_alpha(image, first + y, alpha);
  }
}
