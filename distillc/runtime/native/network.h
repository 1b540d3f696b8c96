// What is generated for every network, and the calling convention of its kernels.
#ifndef DISTILLC_NETWORK_H
#define DISTILLC_NETWORK_H

#include <stddef.h>
#include <stdint.h>

// A tensor and an argument as TVM's kernels take them: DLPack's DLTensor, and TVM-FFI's tagged
// value, which points to one.
typedef struct {
  void *data;
  int32_t device_type, device_id;
  int32_t ndim;
  uint8_t code, bits;
  uint16_t lanes;
  const int64_t *shape;
  const int64_t *strides;
  uint64_t byte_offset;
} dc_tensor;

typedef struct {
  int32_t type;
  uint32_t padding;
  union {
    int64_t integer;
    void *pointer;
  } value;
} dc_value;

enum { DC_CPU = 1, DC_NONE = 0, DC_TENSOR_POINTER = 7 };

typedef int32_t dc_kernel(void *self, const dc_value *arguments, int32_t count, dc_value *result);

typedef struct {
  uint8_t constant;  // among the weights, or else in the arena
  uint8_t code, bits;
  uint8_t ndim;
  uint64_t offset;
  const int64_t *shape;
} dc_operand;

typedef struct {
  dc_kernel *kernel;
  const char *name;
  int32_t count;
  const int32_t *operands;
} dc_call;

typedef struct {
  const char *name, *target;
  int32_t threads;              // unless the caller says otherwise
  int32_t input[3], output[3];  // channels, height, width
  int32_t input_operand, output_operand;
  int32_t operand_count, call_count;
  const dc_operand *operands;
  const dc_call *calls;
  uint64_t arena_bytes;
  uint64_t weight_bytes, weight_checksum;  // as they are stored
  uint64_t halves;  // of the stored numbers, from the first on: float16 that stand for float32
} dc_network;

extern const dc_network dc_the_network;

// Null where they are in a file of their own: such a library is linked without them.
extern const uint8_t dc_the_weights[] __attribute__((weak, visibility("hidden")));

// What torch makes of the image of `bench.c`: `count` values of the output, evenly spread.
typedef struct {
  uint64_t count;
  float tolerance;
  const float *values;
} dc_check;

extern const dc_check dc_the_check;  // in programs, not in libraries

// The kernels of a program that has no network, up to one without a name.
typedef struct {
  const char *name;
  dc_kernel *kernel;
} dc_entry;

extern const dc_entry dc_the_kernels[];

enum { DC_ALIGNMENT = 128 };

#endif
