/* distillc: a compiled image-restoration network as a library without dependencies.
 *
 *   distillc_model *model;
 *   if (distillc_model_create(NULL, &model)) { puts(distillc_last_error()); return; }
 *   distillc_image in = {pixels, DISTILLC_RGBA8, width, height, 4}, out = {...};
 *   if (distillc_model_run(model, &in, &out)) puts(distillc_last_error());
 *   distillc_model_destroy(model);
 *
 * Nothing is thrown, nothing aborts, and no state is shared between models: any number of them may
 * run at once, each in one thread at a time, with threads of its own.
 */
#ifndef DISTILLC_H
#define DISTILLC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DISTILLC_API_VERSION 3

typedef struct distillc_model distillc_model;

typedef enum distillc_status {
  DISTILLC_OK = 0,
  DISTILLC_BAD_ARGUMENT = 1, /* a pointer is null, or a size, layout or stride does not fit */
  DISTILLC_NO_MEMORY = 2,
  DISTILLC_NO_THREADS = 3,  /* the system cannot start another thread */
  DISTILLC_BUSY = 4,        /* another thread is inside this model */
  DISTILLC_BAD_WEIGHTS = 5, /* the weights are damaged, or their file is another network's */
  DISTILLC_INTERNAL = 6     /* a kernel refused its operands: please report it */
} distillc_status;

typedef enum distillc_format {
  DISTILLC_NCHW_F32 = 0, /* planes of float, values in [0, 1] */
  DISTILLC_NHWC_F32 = 1, /* pixels of `channels` floats */
  DISTILLC_RGBA8 = 2,    /* pixels of four bytes; the network sees the first three */
  DISTILLC_NCHW_U16 = 3, /* planes of uint16_t, values in [0, white] */
  DISTILLC_NHWC_U16 = 4, /* pixels of `channels` uint16_t */
  DISTILLC_RGBA16 = 5    /* pixels of four uint16_t; the network sees the first three */
} distillc_format;

/* An image in the caller's memory. Strides are checked against its size, and that it ends where the
 * addresses of a process do (512 GiB); how large the caller's memory is only the caller knows. */
typedef struct distillc_image {
  void *data;
  distillc_format format;
  int32_t width, height; /* pixels */
  int32_t channels;      /* 4 for DISTILLC_RGBA8 and DISTILLC_RGBA16 */
  size_t row_stride;     /* bytes from row to row; 0: rows follow each other */
  size_t plane_stride;   /* bytes from plane to plane, of planes only; 0: likewise */
  int32_t white;         /* what stands for 1 in 16 bits: 1023, 4095, or 65472 where ten bits lie in
                          * the upper ones (P010); 0: 65535. Must be 0 in other formats */
} distillc_image;

typedef struct distillc_options {
  int32_t threads;     /* the caller's own among them; 0: as many as the target has fast cores */
  const char *weights; /* the file of the weights where the library has none, else null */
} distillc_options;

typedef struct distillc_info {
  int32_t api_version;
  const char *name;   /* of the network */
  const char *target; /* what it was compiled for */
  int32_t input_width, input_height, input_channels;
  int32_t output_width, output_height, output_channels;
  int32_t threads;      /* of this model */
  int32_t kernels;      /* steps of one run */
  size_t weight_bytes;  /* in the library or the file, shared by all models */
  size_t planned_bytes; /* of this model: activations, by the static plan */
} distillc_info;

#if defined(__GNUC__)
#define DISTILLC_API __attribute__((visibility("default")))
#else
#define DISTILLC_API
#endif

/* Makes a model. `options` may be null. */
DISTILLC_API distillc_status distillc_model_create(const distillc_options *options,
                                                   distillc_model **model);

/* Runs the network. Sizes are those of `distillc_model_info`; input and output may have different
 * formats. Whole numbers are rounded, and cut to [0, white]; floats are not cut. The alpha channel
 * of an RGBA output is the input's where that has one, enlarged (bilinear) as the network enlarges,
 * else opaque. The network sees the colours of transparent pixels too. Blocks until the output is
 * written, which may lie where the input does if their sizes and formats are equal. */
DISTILLC_API distillc_status distillc_model_run(distillc_model *model, const distillc_image *input,
                                                const distillc_image *output);

/* Restores an image of any size; the output's is the input's times the network's factor. Larger
 * images than the network's go through in tiles that share `overlap` pixels (-1: 32, or a quarter
 * of a small tile), smaller ones are mirrored at their right and lower edges. Beside the images
 * this takes the floats of two rows of tiles. Where it fails, part of the output may be written. */
DISTILLC_API distillc_status distillc_model_restore(distillc_model *model,
                                                    const distillc_image *input,
                                                    const distillc_image *output, int32_t overlap);

/* Runs the network and says how long each of its `kernels` steps took, in milliseconds. */
DISTILLC_API distillc_status distillc_model_profile(distillc_model *model,
                                                    const distillc_image *input,
                                                    const distillc_image *output,
                                                    double *milliseconds, int32_t kernels);

/* The name of a step, null where there is none. */
DISTILLC_API const char *distillc_model_kernel(const distillc_model *model, int32_t step);

/* Describes a model. */
DISTILLC_API distillc_status distillc_model_info(const distillc_model *model, distillc_info *info);

/* Frees a model; null is allowed. It must not be running. What a call with a model that was
 * destroyed does is undefined; a library whose sources are compiled with -DDISTILLC_CHECKED refuses
 * it (DISTILLC_BAD_ARGUMENT), and never gives the few bytes of such a model back. */
DISTILLC_API void distillc_model_destroy(distillc_model *model);

/* What the last call in this thread complained about; "" after success. */
DISTILLC_API const char *distillc_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
