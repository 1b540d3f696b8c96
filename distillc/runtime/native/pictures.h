// Pictures in memory and in files: PNG, JPEG to read, and arrays of NumPy for numbers that are not
// rounded.
#ifndef DISTILLC_PICTURES_H
#define DISTILLC_PICTURES_H

#include <stddef.h>
#include <stdint.h>

// Planes of float, in [0, 1] where they come from a PNG or JPEG.
typedef struct {
  int32_t channels, height, width;
  float *values;
  int32_t bits;   // of a value in its file: 8 or 16
  int32_t clear;  // whether the file has transparency, which is not read
} dc_picture;

// All functions return null, or what is wrong; the picture has no memory then.

// Pixels at most, so that no size overflows.
enum { DC_MOST_PIXELS = 1 << 28 };

// Gives a picture its memory.
const char *dc_new_picture(dc_picture *picture, int64_t channels, int64_t height, int64_t width);

const char *dc_decode_png(const uint8_t *data, size_t size, dc_picture *picture);
const char *dc_decode_npy(const uint8_t *data, size_t size, dc_picture *picture);

// Files whose names end with .png or .npy, to read also .jpg and .jpeg.
const char *dc_read_picture(const char *path, dc_picture *picture);
const char *dc_write_picture(const char *path, const dc_picture *picture);

// Makes gray of colour, or colour of gray.
const char *dc_convert_picture(dc_picture *picture, int32_t channels);

#endif
