// Decodes bytes as a picture, for libFuzzer: the first byte says of which kind.
#include <stdlib.h>

#include "jpeg.h"
#include "pictures.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  const char *(*const decoders[])(const uint8_t *, size_t,
                                  dc_picture *) = {dc_decode_npy, dc_decode_png, dc_decode_jpeg};
  dc_picture picture = {0};
  const char *wrong = decoders[*data % 3](data + 1, size - 1, &picture);
  if (!wrong) free(picture.values);
  return 0;
}
