#include "inflate.h"

#include <string.h>

enum { MOST_BITS = 15, LITERALS = 288, DISTANCES = 30 };

typedef struct {
  const uint8_t *data;
  size_t size, place;
  uint32_t bits;
  int count;    // of bits that are held
  int missing;  // more bits were asked for than there are
} stream;

// A prefix code: how many codes each length has, and their symbols in order.
typedef struct {
  uint16_t counts[MOST_BITS + 1], symbols[LITERALS];
} code;

static uint32_t take(stream *in, int count) {
  while (in->count < count) {
    if (in->place == in->size) {
      in->missing = 1;
      return 0;
    }
    in->bits |= (uint32_t)in->data[in->place++] << in->count;
    in->count += 8;
  }
  const uint32_t found = in->bits & ((1u << count) - 1);
  in->bits >>= count;
  in->count -= count;
  return found;
}

// Says whether the lengths make a code that no bits can leave: over-full ones are refused.
static int make_code(code *made, const uint8_t *lengths, int count) {
  uint16_t starts[MOST_BITS + 1] = {0};
  memset(made->counts, 0, sizeof made->counts);
  for (int i = 0; i < count; i++) made->counts[lengths[i]]++;
  made->counts[0] = 0;
  int room = 1;
  for (int length = 1; length <= MOST_BITS; length++) {
    room = 2 * room - made->counts[length];
    if (room < 0) return 0;
    if (length < MOST_BITS) starts[length + 1] = (uint16_t)(starts[length] + made->counts[length]);
  }
  for (int i = 0; i < count; i++)
    if (lengths[i]) made->symbols[starts[lengths[i]]++] = (uint16_t)i;
  return 1;
}

// The next symbol, -1 where the bits are none.
static int decode(stream *in, const code *known) {
  int value = 0, first = 0, index = 0;
  for (int length = 1; length <= MOST_BITS && !in->missing; length++) {
    value |= (int)take(in, 1);
    const int count = known->counts[length];
    if (value - first < count) return known->symbols[index + value - first];
    index += count;
    first = (first + count) << 1;
    value <<= 1;
  }
  return -1;
}

static int read_codes(stream *in, code *literals, code *distances) {
  static const uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  uint8_t lengths[LITERALS + 32] = {0};
  const int literal = (int)take(in, 5) + 257, distance = (int)take(in, 5) + 1;
  const int own = (int)take(in, 4) + 4;
  if (literal > 286 || distance > DISTANCES) return 0;
  for (int i = 0; i < own; i++) lengths[order[i]] = (uint8_t)take(in, 3);
  code known;
  if (!make_code(&known, lengths, 19)) return 0;
  memset(lengths, 0, sizeof lengths);
  for (int i = 0; i < literal + distance;) {
    const int symbol = decode(in, &known);
    if (symbol < 0) return 0;
    if (symbol < 16) {
      lengths[i++] = (uint8_t)symbol;
      continue;
    }
    if (symbol == 16 && !i) return 0;
    const uint8_t again = symbol == 16 ? lengths[i - 1] : 0;
    int times = symbol == 16   ? 3 + (int)take(in, 2)
                : symbol == 17 ? 3 + (int)take(in, 3)
                               : 11 + (int)take(in, 7);
    if (i + times > literal + distance) return 0;
    while (times--) lengths[i++] = again;
  }
  return make_code(literals, lengths, literal) && make_code(distances, lengths + literal, distance);
}

static void fixed_codes(code *literals, code *distances) {
  uint8_t lengths[LITERALS];
  for (int i = 0; i < LITERALS; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  make_code(literals, lengths, LITERALS);
  memset(lengths, 5, DISTANCES);
  make_code(distances, lengths, DISTANCES);
}

static int copy_stored(stream *in, uint8_t *to, size_t room, size_t *made) {
  in->bits = 0;
  in->count = 0;
  const size_t length = take(in, 16), inverse = take(in, 16);
  if (in->missing || length != (inverse ^ 0xffff) || length > in->size - in->place ||
      length > room - *made)
    return 0;
  memcpy(to + *made, in->data + in->place, length);
  in->place += length;
  *made += length;
  return 1;
}

static int copy_coded(stream *in, const code *literals, const code *distances, uint8_t *to,
                      size_t room, size_t *made) {
  for (;;) {
    int symbol = decode(in, literals);
    if (symbol < 0 || symbol > 285 || in->missing) return 0;
    if (symbol == 256) return 1;
    if (symbol < 256) {
      if (*made == room) return 0;
      to[(*made)++] = (uint8_t)symbol;
      continue;
    }
    size_t length = 258;
    if (symbol < 285) {
      const int more = symbol < 265 ? 0 : (symbol - 261) / 4;
      length = more ? 3 + ((size_t)(4 + (symbol - 261) % 4) << more) : (size_t)symbol - 254;
      length += take(in, more);
    }
    symbol = decode(in, distances);
    if (symbol < 0 || symbol >= DISTANCES) return 0;
    const int more = symbol < 4 ? 0 : symbol / 2 - 1;
    size_t distance = more ? 1 + ((size_t)(2 + symbol % 2) << more) : (size_t)symbol + 1;
    distance += take(in, more);
    if (in->missing || distance > *made || length > room - *made) return 0;
    for (; length; length--, (*made)++) to[*made] = to[*made - distance];
  }
}

int dc_inflate(const uint8_t *data, size_t size, uint8_t *to, size_t room) {
  stream in = {.data = data, .size = size};
  size_t made = 0;
  uint32_t last = 0;
  while (!last) {
    last = take(&in, 1);
    const uint32_t kind = take(&in, 2);
    code literals, distances;
    if (in.missing || kind == 3) return 0;
    if (!kind) {
      if (!copy_stored(&in, to, room, &made)) return 0;
      continue;
    }
    if (kind == 1)
      fixed_codes(&literals, &distances);
    else if (!read_codes(&in, &literals, &distances))
      return 0;
    if (!copy_coded(&in, &literals, &distances, to, room, &made)) return 0;
  }
  return made == room;
}
