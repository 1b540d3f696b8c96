// Numbers in [0, 1] as bytes.
#ifndef DISTILLC_BYTES_H
#define DISTILLC_BYTES_H

#include <stdint.h>

static inline uint8_t dc_to_byte(float value) {
  // Comparisons with a value that is not a number are false.
  return !(value > 0.0f) ? 0 : value >= 1.0f ? 255 : (uint8_t)(value * 255.0f + 0.5f);
}

#endif
