#include "error.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char last_error[256];

distillc_status dc_fail(distillc_status status, const char *format, ...) {
  va_list values;
  va_start(values, format);
  vsnprintf(last_error, sizeof last_error, format, values);
  va_end(values);
  return status;
}

distillc_status dc_succeed(void) {
  last_error[0] = 0;
  return DISTILLC_OK;
}

const char *distillc_last_error(void) { return last_error; }
