// Inside a model, for the functions that run it.
#ifndef DISTILLC_MODEL_H
#define DISTILLC_MODEL_H

#include "distillc.h"

// Refuses null, and in checked builds (DISTILLC_CHECKED) a model that was destroyed.
distillc_status dc_check_model(const distillc_model *model);

// Takes a model for this thread; where that fails another has it.
distillc_status dc_take_model(distillc_model *model);
void dc_give_model(distillc_model *model);

// Where the network reads its input and leaves its output, planes of float.
float *dc_model_input(distillc_model *model);
const float *dc_model_output(const distillc_model *model);

// Runs the kernels; `milliseconds` may be null.
distillc_status dc_run_kernels(distillc_model *model, double *milliseconds);

#endif
