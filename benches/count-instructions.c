// A plugin of QEMU's user emulation that counts the instructions of the emulated program, of all its threads.
//
// QEMU translates a block of instructions at a time. The plugin adds the length of a block each time that a thread
// runs it, and at the end says the sum on standard error, in the words of callgrind, which instructions.rs reads. The
// kernel's instructions are not emulated, so they are not counted.
//
// What is used of qemu-plugin.h is declared here, as QEMU documents it, for Debian's QEMU comes without that file.

#include <inttypes.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct qemu_plugin_tb; // a translated block
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*translated)(plugin_id, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, void (*run)(unsigned thread, void *data),
                                          enum qemu_plugin_cb_flags, void *data);
void qemu_plugin_register_atexit_cb(plugin_id, void (*ended)(plugin_id, void *data), void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);

// Of the interface. QEMU 9 wants 2 here; what is used of it is the same in both.
EXPORT int qemu_plugin_version = 1;

static atomic_uint_fast64_t count;

static void run(unsigned thread, void *length)
{
    (void)thread;
    atomic_fetch_add_explicit(&count, (uintptr_t)length, memory_order_relaxed);
}

static void translated(plugin_id id, struct qemu_plugin_tb *block)
{
    (void)id;
    uintptr_t length = qemu_plugin_tb_n_insns(block);
    qemu_plugin_register_vcpu_tb_exec_cb(block, run, QEMU_PLUGIN_CB_NO_REGS, (void *)length);
}

static void ended(plugin_id id, void *data)
{
    (void)id, (void)data;
    fprintf(stderr, "Collected : %" PRIuFAST64 "\n", atomic_load(&count));
}

EXPORT int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
    (void)info, (void)argc, (void)argv;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, ended, NULL);
    return 0;
}
