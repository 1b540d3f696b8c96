// What a camera notes beside the picture.
#ifndef DISTILLC_EXIF_H
#define DISTILLC_EXIF_H

#include <stddef.h>
#include <stdint.h>

// How the picture is to be turned, 1 (not at all) to 8: the tag Orientation in a JPEG's segment
// APP1 (Exif 2.32, CIPA DC-008, 4.6.4 and 4.7.2); 1 where the segment has none or is damaged.
int dc_exif_turn(const uint8_t *segment, size_t length);

#endif
