// Images in the caller's layouts, and planes of floats as the network takes them.
#ifndef DISTILLC_IMAGES_H
#define DISTILLC_IMAGES_H

#include "distillc.h"

// Checks an image of this shape (channels, height, width) and gives its strides their values.
distillc_status dc_check_image(distillc_image *image, const char *what, const int32_t shape[3]);

// Copies a window of an image to planes; beyond its right and lower edge the image is mirrored.
void dc_read_window(const distillc_image *image, const int32_t shape[3], int32_t top, int32_t left,
                    float *to);

// Copies `count` rows of planes, which are `plane` floats apart, to an image from its row `first`;
// an alpha channel is that of `alpha`, enlarged where the image is larger by a whole factor.
void dc_write_rows(const float *from, size_t plane, const int32_t shape[3], int32_t first,
                   int32_t count, const distillc_image *image, const distillc_image *alpha);

#endif
