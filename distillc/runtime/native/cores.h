// Big and small cores, as Linux describes them.
#ifndef DISTILLC_CORES_H
#define DISTILLC_CORES_H

// Whether the `count` fastest cores that this process may use are equally fast.
int dc_cores_are_equal(int count);

// Keeps the calling thread on the `count` fastest cores, where the system allows it.
void dc_prefer_fast_cores(int count);

#endif
