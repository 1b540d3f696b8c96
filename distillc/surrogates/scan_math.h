// What the scans share: exponentials and logarithms that fill vector lanes.
#pragma once
#include <stdint.h>

// exp for x <= 0 within 2e-7 relative: 2^k times a Taylor polynomial on [-ln2/2, ln2/2].
static inline float exp_negative(float x) {
  x = x < -87.0f ? -87.0f : x;
  float k = (float)(int32_t)(x * 1.44269504f - 0.5f);
  float r = (x - k * 0.693359375f) + k * 2.12194440e-4f;
  // clang-format off: polynomials, not trees
  float p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r *
            (1.0f / 120 + r * (1.0f / 720 + r * (1.0f / 5040)))))));
  // clang-format on
  union {
    int32_t i;
    float f;
  } power = {((int32_t)k + 127) << 23};
  return p * power.f;
}

// log(1 + t) for t in [0, 1] within 3e-8 relative: t times a polynomial fitted by weighted least
// squares.
static inline float log1p_unit(float t) {
  // clang-format off
  return t * (0.99999997f + t * (-0.49999493f + t * (0.333190946f + t * (-0.24842965f + t *
         (0.191059393f + t * (-0.136631023f + t * (0.0782242608f + t * (-0.0295042005f + t *
         0.00523243522f))))))));
  // clang-format on
}
