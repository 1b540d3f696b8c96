#include "jpeg.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "exif.h"

enum { MOST_COMPONENTS = 3, MOST_TABLES = 4, MOST_SAMPLING = 4 };

static const char cut_short[] = "the picture is cut short";
static const char damaged[] = "the picture is damaged";

// How many codes each length has, and their symbols in order (T.81, annex C).
typedef struct {
  uint8_t counts[17], symbols[256];
} huffman;

typedef struct {
  int id, across, down;  // sampling factors
  int table;             // of quantisation
  int dc, ac;            // Huffman tables of this scan
  int last;              // DC value of the block before
  int width, height;     // pixels
  int columns, rows;     // blocks that hold them
  int stride;            // bytes a row, whole MCUs
  uint8_t *plane;
  int seen;
} component;

typedef struct {
  const uint8_t *data;
  size_t size, place;
  uint32_t bits;
  int count;    // of bits that are held
  int overrun;  // more bits were asked for than the scan has
  uint16_t quantisation[MOST_TABLES][64];
  huffman codes[2][MOST_TABLES];  // DC, AC
  component components[MOST_COMPONENTS];
  int used;                         // components
  int width, height, across, down;  // the largest sampling factors
  int restart;                      // MCUs between restart markers, 0: none
  int plain;                        // components are red, green, blue
  int turn;                         // as Exif counts them
  float cosines[8][8];
} decoder;

static const uint8_t zigzag[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,
                                   12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
                                   35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
                                   58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static int next_bit(decoder *in) {
  if (!in->count) {
    uint8_t byte = in->place < in->size ? in->data[in->place] : 0xff;
    if (byte != 0xff) {
      in->place++;
    } else if (in->place + 1 < in->size && !in->data[in->place + 1]) {
      in->place += 2;  // a stuffed zero
    } else {
      in->overrun = 1;  // a marker, or the end
      byte = 0;
    }
    in->bits = byte;
    in->count = 8;
  }
  return (int)(in->bits >> --in->count & 1);
}

// Bits as a number whose first bit is its sign (T.81, F.2.2.1).
static int signed_bits(decoder *in, int count) {
  int value = 0;
  for (int i = 0; i < count; i++) value = value << 1 | next_bit(in);
  return count && value < 1 << (count - 1) ? value - (1 << count) + 1 : value;
}

// The next symbol, -1 where no code fits.
static int next_symbol(decoder *in, const huffman *code) {
  int value = 0, first = 0, index = 0;
  for (int length = 1; length <= 16; length++) {
    value |= next_bit(in);
    const int count = code->counts[length];
    if (value - first < count) return code->symbols[index + value - first];
    index += count;
    first = (first + count) << 1;
    value <<= 1;
  }
  return -1;
}

static const char *read_block(decoder *in, component *own, float *coefficients) {
  const uint16_t *steps = in->quantisation[own->table];
  memset(coefficients, 0, sizeof(float) * 64);
  const int size = next_symbol(in, &in->codes[0][own->dc]);
  if (size < 0 || size > 11) return damaged;
  own->last += signed_bits(in, size);
  if (abs(own->last) > 1 << 15) return damaged;
  coefficients[0] = (float)(own->last * steps[0]);
  for (int i = 1; i < 64; i++) {
    const int symbol = next_symbol(in, &in->codes[1][own->ac]), run = symbol >> 4;
    if (symbol < 0 || (symbol & 15) > 10) return damaged;
    if (!(symbol & 15) && run < 15) break;
    i += run;
    if (i > 63) return damaged;
    coefficients[zigzag[i]] = (float)(signed_bits(in, symbol & 15) * steps[i]);
  }
  return in->overrun ? cut_short : NULL;
}

// Rows, then columns of the inverse cosine transform (T.81, A.3.3).
static void transform(const decoder *in, const float *coefficients, uint8_t *to, int stride) {
  float half[8][8];
  for (int v = 0; v < 8; v++)
    for (int x = 0; x < 8; x++) {
      half[v][x] = 0;
      for (int u = 0; u < 8; u++) half[v][x] += coefficients[8 * v + u] * in->cosines[u][x];
    }
  for (int y = 0; y < 8; y++)
    for (int x = 0; x < 8; x++) {
      float sum = 128;
      for (int v = 0; v < 8; v++) sum += half[v][x] * in->cosines[v][y];
      to[y * stride + x] = dc_to_byte(sum / 255.0f);
    }
}

static const char *read_restart(decoder *in) {
  in->count = 0;
  if (in->place + 2 > in->size) return cut_short;
  if (in->data[in->place] != 0xff || (in->data[in->place + 1] & 0xf8) != 0xd0) return damaged;
  in->place += 2;
  for (int i = 0; i < in->used; i++) in->components[i].last = 0;
  return NULL;
}

static const char *read_mcus(decoder *in, component **own, int count) {
  // One component alone comes block by block; several come in whole MCUs (T.81, A.2).
  const int alone = count == 1;
  const int wide = 8 * in->across, high = 8 * in->down;
  const int columns = alone ? own[0]->columns : (in->width + wide - 1) / wide;
  const int rows = alone ? own[0]->rows : (in->height + high - 1) / high;
  float coefficients[64];
  for (int place = 0; place < columns * rows; place++) {
    if (in->restart && place && place % in->restart == 0) {
      const char *wrong = read_restart(in);
      if (wrong) return wrong;
    }
    for (int i = 0; i < count; i++) {
      component *each = own[i];
      const int across = alone ? 1 : each->across, down = alone ? 1 : each->down;
      for (int part = 0; part < across * down; part++) {
        const size_t row = (size_t)(place / columns * down + part / across);
        const size_t column = (size_t)(place % columns * across + part % across);
        const char *wrong = read_block(in, each, coefficients);
        if (wrong) return wrong;
        transform(in, coefficients, each->plane + 8 * (row * (size_t)each->stride + column),
                  each->stride);
      }
    }
  }
  for (int i = 0; i < count; i++) own[i]->seen = 1;
  return NULL;
}

static const char *read_scan(decoder *in, const uint8_t *segment, size_t length) {
  const int count = length ? segment[0] : 0;
  if (count < 1 || count > in->used || length != 4 + 2 * (size_t)count) return damaged;
  component *own[MOST_COMPONENTS];
  for (int i = 0; i < count; i++) {
    const int id = segment[1 + 2 * i], tables = segment[2 + 2 * i];
    own[i] = NULL;
    for (int j = 0; j < in->used; j++)
      if (in->components[j].id == id) own[i] = &in->components[j];
    if (!own[i] || tables >> 4 >= MOST_TABLES || (tables & 15) >= MOST_TABLES) return damaged;
    own[i]->dc = tables >> 4;
    own[i]->ac = tables & 15;
    own[i]->last = 0;
  }
  in->count = 0;
  return read_mcus(in, own, count);
}

static int sixteen(const uint8_t *bytes) { return bytes[0] << 8 | bytes[1]; }

static const char *read_frame(decoder *in, const uint8_t *segment, size_t length) {
  if (in->used) return damaged;
  if (length < 6) return cut_short;
  if (segment[0] != 8) return "only JPEG of 8 bits can be read: convert it";
  in->height = sixteen(segment + 1);
  in->width = sixteen(segment + 3);
  const int used = segment[5];
  if (used != 1 && used != MOST_COMPONENTS) return "only gray and colour can be read: convert it";
  if (length != 6 + 3 * (size_t)used) return damaged;
  if (!in->height || !in->width) return "the picture is empty or too large";
  in->used = used;
  for (int i = 0; i < used; i++) {
    component *own = &in->components[i];
    const uint8_t *words = segment + 6 + 3 * i;
    own->id = words[0];
    // The only component's own factors mean nothing.
    own->across = used == 1 ? 1 : words[1] >> 4;
    own->down = used == 1 ? 1 : words[1] & 15;
    own->table = words[2];
    if (own->across < 1 || own->across > MOST_SAMPLING || own->down < 1 ||
        own->down > MOST_SAMPLING || own->table >= MOST_TABLES)
      return damaged;
    if (own->across > in->across) in->across = own->across;
    if (own->down > in->down) in->down = own->down;
  }
  if ((int64_t)in->width * in->height > DC_MOST_PIXELS / used)
    return "the picture is empty or too large";
  for (int i = 0; i < used; i++) {
    component *own = &in->components[i];
    const int wide = 8 * in->across, high = 8 * in->down;
    own->width = (in->width * own->across + in->across - 1) / in->across;
    own->height = (in->height * own->down + in->down - 1) / in->down;
    own->columns = (own->width + 7) / 8;
    own->rows = (own->height + 7) / 8;
    own->stride = (in->width + wide - 1) / wide * own->across * 8;
    own->plane =
        calloc((size_t)own->stride, (size_t)((in->height + high - 1) / high * own->down * 8));
    if (!own->plane) return "no memory";
  }
  return NULL;
}

static const char *read_quantisation(decoder *in, const uint8_t *segment, size_t length) {
  while (length) {
    const int wide = segment[0] >> 4, table = segment[0] & 15;
    const size_t own = 1 + 64 * (size_t)(wide + 1);
    if (wide > 1 || table >= MOST_TABLES || length < own) return damaged;
    for (int i = 0; i < 64; i++)
      in->quantisation[table][i] = (uint16_t)(wide ? sixteen(segment + 1 + 2 * i) : segment[1 + i]);
    segment += own;
    length -= own;
  }
  return NULL;
}

static const char *read_huffman(decoder *in, const uint8_t *segment, size_t length) {
  while (length) {
    const int kind = segment[0] >> 4, table = segment[0] & 15;
    if (length < 17 || kind > 1 || table >= MOST_TABLES) return damaged;
    huffman *code = &in->codes[kind][table];
    int symbols = 0, room = 1;
    for (int i = 1; i <= 16; i++) {
      code->counts[i] = segment[i];
      symbols += segment[i];
      room = 2 * room - segment[i];
      if (room < 0) return damaged;  // more codes than bits can tell apart
    }
    if (symbols > 256 || length < 17 + (size_t)symbols) return damaged;
    memcpy(code->symbols, segment + 17, (size_t)symbols);
    segment += 17 + symbols;
    length -= 17 + (size_t)symbols;
  }
  return NULL;
}

static const char *read_segments(decoder *in) {
  while (in->place + 4 <= in->size) {
    const uint8_t *at = in->data + in->place;
    if (at[0] != 0xff) return damaged;
    const int marker = at[1];
    if (marker == 0xff) {  // a filling byte
      in->place++;
      continue;
    }
    const size_t length = (size_t)sixteen(at + 2);
    if (length < 2 || length > in->size - in->place - 2) return cut_short;
    const uint8_t *segment = at + 4;
    in->place += 2 + length;
    const char *wrong = NULL;
    if (marker == 0xc0 || marker == 0xc1)
      wrong = read_frame(in, segment, length - 2);
    else if (marker == 0xc4)
      wrong = read_huffman(in, segment, length - 2);
    else if (marker >= 0xc2 && marker <= 0xcf && marker != 0xc8 && marker != 0xcc)
      wrong = "progressive, lossless and arithmetic JPEG cannot be read: convert it";
    else if (marker == 0xdb)
      wrong = read_quantisation(in, segment, length - 2);
    else if (marker == 0xdd)
      wrong = length == 4 ? (in->restart = sixteen(segment), NULL) : damaged;
    else if (marker == 0xee && length == 14 && !memcmp(segment, "Adobe", 5))
      in->plain = !segment[11];
    else if (marker == 0xe1 && in->turn == 1)
      in->turn = dc_exif_turn(segment, length - 2);
    else if (marker == 0xda && !(wrong = read_scan(in, segment, length - 2))) {
      int missing = 0;
      for (int i = 0; i < in->used; i++) missing += !in->components[i].seen;
      if (!missing) return NULL;
    }
    if (wrong) return wrong;
  }
  return cut_short;
}

// A component at a pixel, between its four neighbours where it is sampled less often.
static float at(const decoder *in, const component *own, int x, int y) {
  if (own->across == in->across && own->down == in->down)
    return own->plane[(size_t)y * (size_t)own->stride + (size_t)x];
  const float column = ((float)x + 0.5f) * (float)own->across / (float)in->across - 0.5f;
  const float row = ((float)y + 0.5f) * (float)own->down / (float)in->down - 0.5f;
  const int left = (int)floorf(column), top = (int)floorf(row);
  float sum = 0;
  for (int i = 0; i < 4; i++) {
    const int near_x = left + (i & 1), near_y = top + (i >> 1);
    const float share = (1 - fabsf(column - (float)near_x)) * (1 - fabsf(row - (float)near_y));
    const int inside_x = near_x < 0 ? 0 : near_x < own->width ? near_x : own->width - 1;
    const int inside_y = near_y < 0 ? 0 : near_y < own->height ? near_y : own->height - 1;
    sum += share * own->plane[(size_t)inside_y * (size_t)own->stride + (size_t)inside_x];
  }
  return sum;
}

static int on_its_side(const decoder *in) { return in->turn > 4; }

static void write_pixels(const decoder *in, dc_picture *picture) {
  const int turn = in->turn, upwards = turn == 3 || turn == 4 || turn == 6 || turn == 7;
  const int leftwards = turn == 2 || turn == 3 || turn == 7 || turn == 8;
  const size_t pixels = (size_t)in->width * (size_t)in->height;
  for (size_t place = 0; place < pixels; place++) {
    const int column = (int)(place % (size_t)picture->width);
    const int row = (int)(place / (size_t)picture->width);
    int x = on_its_side(in) ? row : column, y = on_its_side(in) ? column : row;
    if (leftwards) x = in->width - 1 - x;
    if (upwards) y = in->height - 1 - y;
    float values[MOST_COMPONENTS];
    for (int i = 0; i < in->used; i++) values[i] = at(in, &in->components[i], x, y);
    if (in->used == MOST_COMPONENTS && !in->plain) {
      const float luma = values[0], blue = values[1] - 128, red = values[2] - 128;
      values[0] = luma + 1.402f * red;
      values[1] = luma - 0.344136f * blue - 0.714136f * red;
      values[2] = luma + 1.772f * blue;
    }
    for (int i = 0; i < in->used; i++)
      picture->values[(size_t)i * pixels + place] = (float)dc_to_byte(values[i] / 255.0f) / 255.0f;
  }
}

const char *dc_decode_jpeg(const uint8_t *data, size_t size, dc_picture *picture) {
  if (size < 4 || data[0] != 0xff || data[1] != 0xd8) return "no JPEG file";
  decoder *in = calloc(1, sizeof *in);
  if (!in) return "no memory";
  in->data = data;
  in->size = size;
  in->place = 2;
  in->turn = 1;
  for (int u = 0; u < 8; u++)
    for (int x = 0; x < 8; x++)
      in->cosines[u][x] =
          (float)(cos((2 * x + 1) * u * 3.14159265358979323846 / 16) * (u ? 0.5 : sqrt(0.125)));
  const char *wrong = read_segments(in);
  const int height = on_its_side(in) ? in->width : in->height;
  const int width = on_its_side(in) ? in->height : in->width;
  if (!wrong) wrong = dc_new_picture(picture, in->used, height, width);
  if (!wrong) write_pixels(in, picture);
  for (int i = 0; i < MOST_COMPONENTS; i++) free(in->components[i].plane);
  free(in);
  return wrong;
}
