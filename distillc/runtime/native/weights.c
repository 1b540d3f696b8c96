#include "weights.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "network.h"

static uint64_t checksum(const uint8_t *bytes, uint64_t count) {
  // Words times odd numbers: a bit that changes is seen wherever it is, and so are words that swap.
  uint64_t sum = 0, word;
  for (uint64_t i = 0; i < count / sizeof word; i++) {
    memcpy(&word, bytes + i * sizeof word, sizeof word);
    sum += word * (2 * i + 1);
  }
  return sum;
}

// Maps a file, so that models and processes share its pages.
static distillc_status map(const char *path, dc_weights *weights) {
  const dc_network *net = &dc_the_network;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return dc_fail(DISTILLC_BAD_WEIGHTS, "%s cannot be opened", path);
  const off_t size = lseek(file, 0, SEEK_END);
  void *mapped = MAP_FAILED;
  if (size == (off_t)net->weight_bytes)
    mapped = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
  close(file);
  if (size != (off_t)net->weight_bytes)
    return dc_fail(DISTILLC_BAD_WEIGHTS, "%s has %lld bytes, the weights of %s %llu", path,
                   (long long)size, net->name, (unsigned long long)net->weight_bytes);
  if (mapped == MAP_FAILED) return dc_fail(DISTILLC_NO_MEMORY, "%s cannot be mapped", path);
  weights->bytes = weights->mapped = mapped;
  return DISTILLC_OK;
}

// Makes float32 of the float16 numbers that come first, and copies the rest.
static distillc_status expand(dc_weights *weights) {
  const dc_network *net = &dc_the_network;
  const size_t packed = net->halves * sizeof(_Float16), rest = net->weight_bytes - packed;
  void *memory;
  if (posix_memalign(&memory, DC_ALIGNMENT, net->halves * sizeof(float) + rest))
    return dc_fail(DISTILLC_NO_MEMORY, "no memory for the weights of %s", net->name);
  float *numbers = memory;
  for (uint64_t i = 0; i < net->halves; i++) {
    _Float16 number;
    memcpy(&number, weights->bytes + i * sizeof number, sizeof number);
    numbers[i] = (float)number;
  }
  memcpy(numbers + net->halves, weights->bytes + packed, rest);
  weights->bytes = weights->expanded = memory;
  return DISTILLC_OK;
}

distillc_status dc_open_weights(const char *path, dc_weights *weights) {
  const dc_network *net = &dc_the_network;
  *weights = (dc_weights){.bytes = dc_the_weights};
  if (!path && !weights->bytes)
    return dc_fail(
        DISTILLC_BAD_ARGUMENT,
        "the weights of %s are in a file of their own: `weights` in the options says where",
        net->name);
  distillc_status status = path ? map(path, weights) : DISTILLC_OK;
  if (!status && checksum(weights->bytes, net->weight_bytes) != net->weight_checksum)
    status =
        dc_fail(DISTILLC_BAD_WEIGHTS, "the weights of %s are damaged: install it anew", net->name);
  if (!status && net->halves) {
    status = expand(weights);
    if (weights->mapped) munmap(weights->mapped, net->weight_bytes);
    weights->mapped = NULL;
  }
  if (status) dc_close_weights(weights);
  return status;
}

void dc_close_weights(dc_weights *weights) {
  if (weights->mapped) munmap(weights->mapped, dc_the_network.weight_bytes);
  free(weights->expanded);
  *weights = (dc_weights){NULL, NULL, NULL};
}
