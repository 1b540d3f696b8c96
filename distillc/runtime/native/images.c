#include "images.h"

#include <string.h>

#include "bytes.h"
#include "error.h"

enum { ADDRESS_BITS = 39 };  // of a process on Android, the least of all targets

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
  if (image->format < DISTILLC_NCHW_F32 || image->format > DISTILLC_RGBA8)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the %s has the unknown format %d", what, image->format);
  const int bytes = image->format == DISTILLC_RGBA8;
  if (bytes && shape[0] != 3)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the %s has %d channels: RGBA8 stands for three", what,
                   shape[0]);
  const int32_t channels = bytes ? 4 : shape[0];
  if (image->channels != channels || image->height != shape[1] || image->width != shape[2])
    return dc_fail(DISTILLC_BAD_ARGUMENT,
                   "the %s is %d wide, %d high with %d channels; the network takes %d, %d, %d",
                   what, image->width, image->height, image->channels, shape[2], shape[1],
                   channels);
  const size_t pixel = bytes ? 4 : sizeof(float) * (size_t)(image->format ? channels : 1);
  const size_t row = pixel * (size_t)image->width;
  if (!image->row_stride) image->row_stride = row;
  size_t plane;
  if (__builtin_mul_overflow(image->row_stride, (size_t)image->height, &plane))
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the rows of the %s do not fit the memory", what);
  if (!image->plane_stride) image->plane_stride = plane;
  if (image->row_stride < row || image->plane_stride < plane)
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the rows or planes of the %s overlap", what);
  if (!in_memory(image, row, image->format == DISTILLC_NCHW_F32 ? channels : 1))
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the strides of the %s do not fit the memory", what);
  if (!bytes && ((uintptr_t)image->data | image->row_stride | image->plane_stride) % sizeof(float))
    return dc_fail(DISTILLC_BAD_ARGUMENT, "the floats of the %s do not lie at multiples of 4",
                   what);
  return DISTILLC_OK;
}

// Where pixel `place` of a mirrored line lies: 0 1 2 2 1 0 0 1 ...
static size_t mirror(int64_t place, int32_t extent) {
  place %= 2 * (int64_t)extent;
  return (size_t)(place < extent ? place : 2 * (int64_t)extent - 1 - place);
}

static float read_value(const uint8_t *row, distillc_format format, size_t x, int32_t channels,
                        int32_t channel) {
  if (format == DISTILLC_RGBA8) return (float)row[4 * x + (size_t)channel] / 255.0f;
  const float *values = (const float *)row;
  return format == DISTILLC_NCHW_F32 ? values[x] : values[x * (size_t)channels + (size_t)channel];
}

void dc_read_window(const distillc_image *image, const int32_t shape[3], int32_t top, int32_t left,
                    float *to) {
  const int64_t width = shape[2], inside = image->width - (int64_t)left;
  for (int32_t c = 0; c < shape[0]; c++) {
    for (int32_t y = 0; y < shape[1]; y++, to += width) {
      const uint8_t *row = (const uint8_t *)image->data +
                           image->row_stride * mirror((int64_t)top + y, image->height);
      if (image->format == DISTILLC_NCHW_F32) row += image->plane_stride * (size_t)c;
      int64_t x = 0;
      for (; x < width && x < inside; x++)
        to[x] = read_value(row, image->format, (size_t)(left + x), shape[0], c);
      for (; x < width; x++)
        to[x] = read_value(row, image->format, mirror(left + x, image->width), shape[0], c);
    }
  }
}

void dc_write_image(const float *from, const int32_t shape[3], const distillc_image *image,
                    const distillc_image *alpha) {
  const size_t width = (size_t)shape[2];
  for (int32_t c = 0; c < shape[0]; c++)
    for (int32_t y = 0; y < shape[1]; y++, from += width) {
      uint8_t *row = (uint8_t *)image->data + image->row_stride * (size_t)y;
      if (image->format == DISTILLC_NCHW_F32) {
        memcpy(row + image->plane_stride * (size_t)c, from, width * sizeof(float));
      } else if (image->format == DISTILLC_NHWC_F32) {
        float *to = (float *)row + c;
        for (size_t x = 0; x < width; x++) to[x * (size_t)shape[0]] = from[x];
      } else {
        for (size_t x = 0; x < width; x++) row[4 * x + (size_t)c] = dc_to_byte(from[x]);
      }
    }
  if (image->format != DISTILLC_RGBA8) return;
  const int copied = alpha->format == DISTILLC_RGBA8 && alpha->width == image->width &&
                     alpha->height == image->height;
  for (int32_t y = 0; y < shape[1]; y++) {
    uint8_t *row = (uint8_t *)image->data + image->row_stride * (size_t)y;
    const uint8_t *own = (const uint8_t *)alpha->data + alpha->row_stride * (size_t)y;
    for (size_t x = 0; x < width; x++) row[4 * x + 3] = copied ? own[4 * x + 3] : 255;
  }
}
