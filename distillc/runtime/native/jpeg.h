// JPEG pictures as cameras write them.
#ifndef DISTILLC_JPEG_H
#define DISTILLC_JPEG_H

#include "pictures.h"

// Of ITU-T T.81: sequential, Huffman-coded, 8 bits, gray or three components of any sampling;
// colour as JFIF (ITU-T T.871) has it, or RGB where Adobe's marker says so; turned as the camera
// notes. The rest is refused.
const char *dc_decode_jpeg(const uint8_t *data, size_t size, dc_picture *picture);

#endif
