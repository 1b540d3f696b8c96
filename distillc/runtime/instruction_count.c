// A plugin for qemu's user-mode emulators: how often each translated block of code was executed.
//
// At exit it writes one line a block to the file that the argument `out=PATH` names:
//   COUNT OFFSET HEX HEX ... <tab> FILE
// OFFSET is where the block stands in FILE, HEX are the bytes of its instructions; where no file
// holds the code (it was made at run time) FILE is empty and OFFSET an address of the emulator's.
// Threads are counted together without locks: counts are exact for programs of one thread.
//
// Distributions do not package qemu-plugin.h: what is used of it (version 1 of the interface) is
// declared here.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { INLINE_ADD_U64 = 0 };
typedef uint64_t plugin_id;
typedef void (*at_translation)(plugin_id, struct qemu_plugin_tb *);
typedef void (*at_return)(plugin_id, unsigned, int64_t, int64_t);
typedef void (*at_exit)(plugin_id, void *);

extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, at_translation);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int, void *,
                                                     uint64_t);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, at_return);
extern void qemu_plugin_register_atexit_cb(plugin_id, at_exit, void *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

struct map {
  uint64_t start, end, offset;
  char file[4096];
};

struct block {
  struct block *next;
  uint64_t count, offset;
  char *code, *file;
};

static struct map *maps;
static size_t n_maps;
static int stale = 1;
static struct block *blocks;
static FILE *sink;

static void *checked(void *memory) {
  if (!memory) abort();
  return memory;
}

// Libraries are unloaded before the end, so what lies where is looked up when code is translated.
static void read_maps(void) {
  char line[8192];
  FILE *source = fopen("/proc/self/maps", "r");
  n_maps = 0;
  while (source && fgets(line, sizeof line, source)) {
    maps = checked(realloc(maps, (n_maps + 1) * sizeof *maps));
    struct map *map = &maps[n_maps];
    unsigned long long start, end, offset;
    if (sscanf(line, "%llx-%llx %*s %llx %*s %*s %4095[^\n]", &start, &end, &offset, map->file) !=
        4)
      continue;
    if (map->file[0] != '/') continue;
    map->start = start, map->end = end, map->offset = offset;
    ++n_maps;
  }
  if (source) fclose(source);
  stale = 0;
}

static void locate(struct block *block, uint64_t address) {
  if (stale) read_maps();
  block->offset = address;
  for (size_t i = 0; i < n_maps; ++i)
    if (maps[i].start <= address && address < maps[i].end) {
      block->offset = address - maps[i].start + maps[i].offset;
      block->file = checked(strdup(maps[i].file));
    }
}

static void translate(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  const size_t count = qemu_plugin_tb_n_insns(tb);
  size_t length = 1;
  for (size_t i = 0; i < count; ++i)
    length += 2 * qemu_plugin_insn_size(qemu_plugin_tb_get_insn(tb, i)) + 1;
  struct block *block = checked(calloc(1, sizeof *block));
  char *text = block->code = checked(malloc(length));
  for (size_t i = 0; i < count; ++i) {
    const struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
    const unsigned char *data = qemu_plugin_insn_data(insn);
    *text++ = ' ';
    for (size_t j = 0; j < qemu_plugin_insn_size(insn); ++j, text += 2)
      sprintf(text, "%02x", data[j]);
  }
  *text = 0;
  locate(block, (uintptr_t)qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0)));
  // Code may be translated again: each translation has a counter of its own, the reader adds them.
  block->next = blocks;
  blocks = block;
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD_U64, &block->count, 1);
}

static void returned(plugin_id id, unsigned cpu, int64_t number, int64_t result) {
  (void)id, (void)cpu, (void)number, (void)result;
  stale = 1;  // it may have been mmap
}

static void finish(plugin_id id, void *data) {
  (void)id, (void)data;
  for (struct block *block = blocks; block; block = block->next)
    if (block->count)
      fprintf(sink, "%llu %llx%s\t%s\n", (unsigned long long)block->count,
              (unsigned long long)block->offset, block->code, block->file ? block->file : "");
  fclose(sink);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info,
                                                               int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; ++i)
    if (!strncmp(argv[i], "out=", 4)) sink = fopen(argv[i] + 4, "w");
  if (!sink) {
    fprintf(stderr, "the plugin needs out=PATH, a file it can write\n");
    return 1;
  }
  qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
  qemu_plugin_register_vcpu_syscall_ret_cb(id, returned);
  qemu_plugin_register_atexit_cb(id, finish, NULL);
  return 0;
}
