// What the last call in this thread complained about.
#ifndef DISTILLC_ERROR_H
#define DISTILLC_ERROR_H

#include "distillc.h"

// Keeps a message, as printf's, for `distillc_last_error`, and returns `status`.
__attribute__((format(printf, 2, 3))) distillc_status dc_fail(distillc_status status,
                                                              const char *format, ...);

// Forgets what was complained about.
distillc_status dc_succeed(void);

#endif
