#include "pictures.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jpeg.h"
#include "png.h"

static const char magic[] = "\x93NUMPY\x01";

const char *dc_new_picture(dc_picture *picture, int64_t channels, int64_t height, int64_t width) {
  if (channels < 1 || height < 1 || width < 1 || channels > 1 << 16 || height > DC_MOST_PIXELS ||
      width > DC_MOST_PIXELS / height || channels > DC_MOST_PIXELS / (height * width))
    return "the picture is empty or too large";
  const size_t count = (size_t)(channels * height * width);
  *picture = (dc_picture){
      (int32_t)channels, (int32_t)height, (int32_t)width, malloc(sizeof(float) * count), 8, 0};
  return picture->values ? NULL : "no memory";
}

// Of arrays (C, H, W) or (1, C, H, W), float32 in C order.
const char *dc_decode_npy(const uint8_t *data, size_t size, dc_picture *picture) {
  if (size < 10 || memcmp(data, magic, 7)) return "no array of NumPy (version 1)";
  const size_t length = (size_t)data[8] | (size_t)data[9] << 8;
  char head[512] = {0};
  if (length >= sizeof head || length > size - 10) return "the array's header is damaged";
  memcpy(head, data + 10, length);
  if (!strstr(head, "'<f4'") || !strstr(head, "'fortran_order': False"))
    return "the array is not float32 in C order";
  const char *shape = strstr(head, "'shape': (");
  long long extents[4];
  const int count = shape ? sscanf(shape + 10, "%lld , %lld , %lld , %lld", &extents[0],
                                   &extents[1], &extents[2], &extents[3])
                          : 0;
  if (count < 3 || (count == 4 && extents[0] != 1)) return "the array is not (C, H, W)";
  const long long *own = extents + (count == 4);
  const char *wrong = dc_new_picture(picture, own[0], own[1], own[2]);
  if (wrong) return wrong;
  const size_t bytes = sizeof(float) * (size_t)(own[0] * own[1] * own[2]);
  if (size - 10 - length == bytes) {
    memcpy(picture->values, data + 10 + length, bytes);
    picture->bits = 16;  // floats have no fewer
    return NULL;
  }
  free(picture->values);
  return "the array is cut short";
}

static const char *write_npy(FILE *file, const dc_picture *picture) {
  char head[128] = {0};
  memcpy(head, magic, 7);
  head[8] = sizeof head - 10;
  const int written =
      snprintf(head + 10, sizeof head - 11,
               "{'descr': '<f4', 'fortran_order': False, 'shape': (1, %d, %d, %d), }",
               picture->channels, picture->height, picture->width);
  memset(head + 10 + written, ' ', sizeof head - 11 - (size_t)written);
  head[sizeof head - 1] = '\n';
  const size_t count = (size_t)picture->channels * (size_t)picture->height * (size_t)picture->width;
  return fwrite(head, 1, sizeof head, file) == sizeof head &&
                 fwrite(picture->values, sizeof(float), count, file) == count
             ? NULL
             : "cannot be written";
}

static int ends_with(const char *path, const char *end) {
  const size_t length = strlen(path), own = strlen(end);
  return length >= own && !strcmp(path + length - own, end);
}

static uint8_t *read_whole(FILE *file, size_t *size) {
  uint8_t *data = NULL;
  size_t room = 0;
  for (*size = 0;;) {
    if (*size == room) {
      uint8_t *more = realloc(data, room = room ? 2 * room : 1 << 20);
      if (!more) break;
      data = more;
    }
    const size_t got = fread(data + *size, 1, room - *size, file);
    if (!got) return data;
    *size += got;
  }
  free(data);
  return NULL;
}

const char *dc_read_picture(const char *path, dc_picture *picture) {
  const char *(*decode)(const uint8_t *, size_t, dc_picture *) =
      ends_with(path, ".png")                               ? dc_decode_png
      : ends_with(path, ".npy")                             ? dc_decode_npy
      : ends_with(path, ".jpg") || ends_with(path, ".jpeg") ? dc_decode_jpeg
                                                            : NULL;
  if (!decode) return "only .png, .jpg, .jpeg and .npy can be read: convert it";
  FILE *file = fopen(path, "rb");
  if (!file) return "cannot be read";
  size_t size;
  uint8_t *data = read_whole(file, &size);
  fclose(file);
  if (!data) return "no memory";
  picture->values = NULL;
  const char *wrong = decode(data, size, picture);
  free(data);
  return wrong;
}

const char *dc_write_picture(const char *path, const dc_picture *picture) {
  const int png = ends_with(path, ".png");
  if (!png && !ends_with(path, ".npy")) return "only .png and .npy can be written";
  FILE *file = fopen(path, "wb");
  if (!file) return "cannot be written";
  const char *wrong = (png ? dc_write_png : write_npy)(file, picture);
  return fclose(file) && !wrong ? "cannot be written" : wrong;
}

const char *dc_convert_picture(dc_picture *picture, int32_t channels) {
  if (picture->channels == channels) return NULL;
  if ((picture->channels != 1 && picture->channels != 3) || (channels != 1 && channels != 3))
    return "has another number of channels than the network";
  const dc_picture old = *picture;
  const char *wrong = dc_new_picture(picture, channels, old.height, old.width);
  if (wrong) return wrong;
  const size_t pixels = (size_t)old.height * (size_t)old.width;
  for (size_t i = 0; i < pixels; i++)
    if (channels == 3)
      for (size_t c = 0; c < 3; c++) picture->values[c * pixels + i] = old.values[i];
    else  // luma of ITU-R BT.601
      picture->values[i] = 0.299f * old.values[i] + 0.587f * old.values[pixels + i] +
                           0.114f * old.values[2 * pixels + i];
  free(old.values);
  picture->bits = old.bits;
  picture->clear = old.clear;
  return NULL;
}
