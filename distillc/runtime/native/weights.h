// The constants of a network: in the library, or in a file of their own.
#ifndef DISTILLC_WEIGHTS_H
#define DISTILLC_WEIGHTS_H

#include "distillc.h"

typedef struct {
  const uint8_t *bytes;  // as the operands' offsets say
  void *mapped;          // the file, or null
  uint8_t *expanded;     // what was stored as float16, or null
} dc_weights;

// Finds and checks the weights; `path` may be null where the library has them.
distillc_status dc_open_weights(const char *path, dc_weights *weights);
void dc_close_weights(dc_weights *weights);

#endif
