// Numbers in [0, 1] as whole ones.
#ifndef DISTILLC_BYTES_H
#define DISTILLC_BYTES_H

#include <stdint.h>

static inline uint16_t dc_to_whole(float value, int32_t white) {
  // Comparisons with a value that is not a number are false.
  return !(value > 0.0f) ? 0
         : value >= 1.0f ? (uint16_t)white
                         : (uint16_t)(value * (float)white + 0.5f);
}

static inline uint8_t dc_to_byte(float value) { return (uint8_t)dc_to_whole(value, 255); }

#endif
