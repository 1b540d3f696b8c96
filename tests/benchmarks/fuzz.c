// Decodes bytes as a picture, for libFuzzer: the first byte says of which kind.
#include <stdlib.h>

#include "pictures.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  dc_picture picture = {0};
  const char *wrong = (*data & 1 ? dc_decode_png : dc_decode_npy)(data + 1, size - 1, &picture);
  if (!wrong) free(picture.values);
  return 0;
}
