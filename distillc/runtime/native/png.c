// PNG (RFC 2083): reads what has whole bytes and is not interlaced, writes 8 or 16 bits, not
// packed.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "inflate.h"
#include "pictures.h"
#include "png.h"

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

typedef struct {
  int64_t width, height;
  int depth, kind, channels;  // channels as they are stored
  const uint8_t *palette;
  size_t colours;
  int clear;  // whether a chunk says what is transparent
} header;

static uint32_t read_word(const uint8_t *data) {
  return (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
}

static const char *read_header(const uint8_t *data, uint32_t size, header *found) {
  if (size != 13) return "the PNG's header is damaged";
  static const int channels[] = {1, 0, 3, 1, 2, 0, 4};
  found->width = read_word(data);
  found->height = read_word(data + 4);
  found->depth = data[8];
  found->kind = data[9];
  if (found->kind > 6 || !channels[found->kind] || data[10] || data[11] || data[12] > 1)
    return "the PNG's header is damaged";
  if (data[12]) return "the PNG is interlaced: save it without";
  if (found->depth != 8 && (found->depth != 16 || found->kind == 3))
    return "the PNG has neither 8 nor 16 bits a value: save it with 8";
  if (!found->width || !found->height || found->width > DC_MOST_PIXELS / found->height)
    return "the PNG is too large";
  found->channels = channels[found->kind];
  return NULL;
}

static uint8_t paeth(int left, int up, int corner) {
  const int sum = left + up - corner;
  const int a = abs(sum - left), b = abs(sum - up), c = abs(sum - corner);
  return (uint8_t)(a <= b && a <= c ? left : b <= c ? up : corner);
}

// Undoes the filters of all rows, in place.
static const char *undo_filters(uint8_t *rows, int64_t height, size_t row, size_t pixel) {
  for (int64_t y = 0; y < height; y++) {
    uint8_t *line = rows + (size_t)y * (row + 1), filter = *line++;
    const uint8_t *before = y ? line - row - 1 : NULL;
    if (filter > 4) return "the PNG is damaged";
    for (size_t i = 0; i < row; i++) {
      const int left = i < pixel ? 0 : line[i - pixel], up = before ? before[i] : 0;
      const int corner = before && i >= pixel ? before[i - pixel] : 0;
      const int guesses[] = {0, left, up, (left + up) / 2, paeth(left, up, corner)};
      line[i] = (uint8_t)(line[i] + guesses[filter]);
    }
  }
  return NULL;
}

static const char *to_planes(const header *found, const uint8_t *rows, size_t row,
                             dc_picture *picture) {
  const int colour = found->kind & 2, bytes = found->depth / 8;
  const char *wrong = dc_new_picture(picture, colour ? 3 : 1, found->height, found->width);
  if (wrong) return wrong;
  picture->bits = found->depth;
  picture->clear = found->clear || found->kind & 4;
  const size_t pixels = (size_t)found->width * (size_t)found->height;
  for (int64_t y = 0; y < found->height; y++)
    for (int64_t x = 0; x < found->width; x++) {
      const uint8_t *from =
          rows + (size_t)y * (row + 1) + 1 + (size_t)(x * found->channels * bytes);
      if (found->kind == 3) {
        if (*from >= found->colours) {
          free(picture->values);
          return "the PNG's palette has too few colours";
        }
        from = found->palette + 3 * *from;
      }
      for (int c = 0; c < picture->channels; c++) {
        const float value = bytes == 2 ? (float)(from[2 * c] << 8 | from[2 * c + 1]) / 65535.0f
                                       : (float)from[c] / 255.0f;
        picture->values[(size_t)c * pixels + (size_t)(y * found->width + x)] = value;
      }
    }
  return NULL;
}

const char *dc_decode_png(const uint8_t *data, size_t size, dc_picture *picture) {
  if (size < sizeof signature || memcmp(data, signature, sizeof signature)) return "no PNG";
  header found = {0};
  uint8_t *packed = malloc(size);
  size_t length = 0, place = sizeof signature;
  const char *wrong = packed ? NULL : "no memory";
  while (!wrong && size - place >= 12) {
    const uint32_t chunk = read_word(data + place);
    const uint8_t *name = data + place + 4, *body = data + place + 8;
    if (chunk > size - place - 12) wrong = "the PNG is cut short";
    if (wrong || !memcmp(name, "IEND", 4)) break;
    if (!memcmp(name, "IHDR", 4)) {
      wrong = read_header(body, chunk, &found);
    } else if (!memcmp(name, "PLTE", 4)) {
      found.palette = body;
      found.colours = chunk / 3;
    } else if (!memcmp(name, "tRNS", 4)) {
      found.clear = 1;
    } else if (!memcmp(name, "IDAT", 4)) {
      memcpy(packed + length, body, chunk);
      length += chunk;
    }
    place += 12 + (size_t)chunk;
  }
  const size_t pixel = (size_t)(found.channels * found.depth / 8);
  const size_t row = (size_t)found.width * pixel;
  uint8_t *rows = NULL;
  if (!wrong && (!found.width || length < 6)) wrong = "the PNG is cut short";
  if (!wrong && !(rows = malloc((row + 1) * (size_t)found.height))) wrong = "no memory";
  // Two bytes of zlib's header, and its sum of four bytes at the end, which is not looked at.
  if (!wrong && !dc_inflate(packed + 2, length - 2, rows, (row + 1) * (size_t)found.height))
    wrong = "the PNG is damaged";
  if (!wrong) wrong = undo_filters(rows, found.height, row, pixel);
  if (!wrong) wrong = to_planes(&found, rows, row, picture);
  free(packed);
  free(rows);
  return wrong;
}

static uint32_t crc(uint32_t sum, const uint8_t *data, size_t size) {
  for (size_t i = 0; i < size; i++) {
    sum ^= data[i];
    for (int bit = 0; bit < 8; bit++) sum = sum & 1 ? sum >> 1 ^ 0xedb88320u : sum >> 1;
  }
  return sum;
}

static void put_word(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++) to[i] = (uint8_t)(value >> (24 - 8 * i));
}

static int write_chunk(FILE *file, const char *name, const uint8_t *body, size_t size) {
  uint8_t head[8], tail[4];
  put_word(head, (uint32_t)size);
  memcpy(head + 4, name, 4);
  put_word(tail, ~crc(crc(~0u, head + 4, 4), body, size));
  return fwrite(head, 1, 8, file) == 8 && fwrite(body, 1, size, file) == size &&
         fwrite(tail, 1, 4, file) == 4;
}

// Rows as zlib stores them: blocks of at most 65535 bytes, and a sum.
static uint8_t *pack(const dc_picture *picture, size_t *size) {
  const size_t bytes = (size_t)picture->bits / 8, pixel = bytes * (size_t)picture->channels;
  const size_t row = (size_t)picture->width * pixel + 1;
  const size_t total = row * (size_t)picture->height, most = 65535;
  const size_t pixels = (size_t)picture->width * (size_t)picture->height;
  uint8_t *made = malloc(total + 5 * (total / most + 1) + 6), *to = made;
  if (!made) return NULL;
  *to++ = 0x78;
  *to++ = 0x01;
  uint32_t low = 1, high = 0;
  for (size_t i = 0; i < total; i++) {
    if (i % most == 0) {
      const size_t length = total - i < most ? total - i : most;
      *to++ = length == total - i;
      *to++ = (uint8_t)length;
      *to++ = (uint8_t)(length >> 8);
      *to++ = (uint8_t)~length;
      *to++ = (uint8_t)(~length >> 8);
    }
    const size_t column = i % row;
    uint8_t value = 0;
    if (column) {
      const size_t channel = (column - 1) % pixel / bytes,
                   place = i / row * (size_t)picture->width + (column - 1) / pixel;
      const float own = picture->values[channel * pixels + place];
      const uint16_t deep = dc_to_whole(own, 65535);  // in files its upper byte is first
      value = bytes == 1 ? dc_to_byte(own) : (uint8_t)((column - 1) % 2 ? deep : deep >> 8);
    }
    *to++ = value;
    low = (low + value) % 65521;
    high = (high + low) % 65521;
  }
  put_word(to, high << 16 | low);
  *size = (size_t)(to + 4 - made);
  return made;
}

const char *dc_write_png(FILE *file, const dc_picture *picture) {
  if (picture->channels != 1 && picture->channels != 3) return "a PNG has one or three channels";
  uint8_t head[13] = {0};
  put_word(head, (uint32_t)picture->width);
  put_word(head + 4, (uint32_t)picture->height);
  head[8] = (uint8_t)picture->bits;
  head[9] = picture->channels == 3 ? 2 : 0;
  size_t size;
  uint8_t *body = pack(picture, &size);
  if (!body) return "no memory";
  const int done = fwrite(signature, 1, 8, file) == 8 && write_chunk(file, "IHDR", head, 13) &&
                   write_chunk(file, "IDAT", body, size) && write_chunk(file, "IEND", NULL, 0);
  free(body);
  return done ? NULL : "cannot be written";
}
