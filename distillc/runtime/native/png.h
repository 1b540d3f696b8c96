#ifndef DISTILLC_PNG_H
#define DISTILLC_PNG_H

#include <stdio.h>

#include "pictures.h"

const char *dc_write_png(FILE *file, const dc_picture *picture);

#endif
