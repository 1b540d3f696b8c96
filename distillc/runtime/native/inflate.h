// Deflate (RFC 1951), one way.
#ifndef DISTILLC_INFLATE_H
#define DISTILLC_INFLATE_H

#include <stddef.h>
#include <stdint.h>

// Unpacks exactly `room` bytes; says whether the data gave as many.
int dc_inflate(const uint8_t *data, size_t size, uint8_t *to, size_t room);

#endif
