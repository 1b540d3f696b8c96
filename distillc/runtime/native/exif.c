#include "exif.h"

#include <string.h>

enum { ORIENTATION = 0x112, SHORT = 3, ENTRY = 12 };

static uint32_t number(const uint8_t *bytes, size_t count, int big_endian) {
  uint32_t value = 0;
  for (size_t i = 0; i < count; i++) value = value << 8 | bytes[big_endian ? i : count - 1 - i];
  return value;
}

int dc_exif_turn(const uint8_t *segment, size_t length) {
  if (length < 16 || memcmp(segment, "Exif\0", 6)) return 1;
  const uint8_t *tiff = segment + 6;
  const size_t size = length - 6;
  const int big = !memcmp(tiff, "MM\0*", 4);
  if (!big && memcmp(tiff, "II*", 4)) return 1;
  const size_t start = number(tiff + 4, 4, big);
  if (start > size - 2) return 1;
  const size_t room = (size - start - 2) / ENTRY, told = number(tiff + start, 2, big);
  for (size_t i = 0; i < (told < room ? told : room); i++) {
    const uint8_t *entry = tiff + start + 2 + ENTRY * i;
    if (number(entry, 2, big) != ORIENTATION) continue;
    const uint32_t turn = number(entry + 8, 2, big);
    return number(entry + 2, 2, big) == SHORT && turn >= 1 && turn <= 8 ? (int)turn : 1;
  }
  return 1;
}
