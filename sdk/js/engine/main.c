/* What a node calls. */
#include <stdlib.h>

#include "engine.h"

#define EXPORT(NAME) __attribute__((export_name(NAME)))

/* Returns room for an item. The task frees it. */
EXPORT("pcluster_alloc") void *pcluster_alloc(size_t length)
{
    return malloc(length + 1);
}

static int32_t run(int32_t task, uint8_t *item, size_t length)
{
    int32_t status = task_run(task, item, length);
    free(item);
    return status;
}

/* Runs a task on one item after the other, until the node has no more. */
static int32_t run_each(int32_t task)
{
    int32_t status = DONE, length;
    static uint8_t *item;
    static int32_t room;
    while ((length = host_next(status)) >= 0) {
        if (length > room || !item) {
            free(item);
            item = malloc(room = length + 512);
            if (!item)
                abort();
        }
        host_read_item(item);
        status = task_run(task, item, length);
    }
    return DONE;
}

/* Entries of numbered tasks. `build` exports as many as there are tasks, under their names. */
#define ENTRY(NUMBER)                                                                                                                    \
    EXPORT("pcluster_run_" #NUMBER) int32_t run_##NUMBER(uint8_t *item, size_t length) { return run(NUMBER, item, length); }             \
    EXPORT("pcluster_each_" #NUMBER) int32_t each_##NUMBER(void) { return run_each(NUMBER); }                                            \
    EXPORT("pcluster_load_" #NUMBER) int32_t load_##NUMBER(void) { return task_load(NUMBER); }

/* clang-format off */
ENTRY(0) ENTRY(1) ENTRY(2) ENTRY(3) ENTRY(4) ENTRY(5) ENTRY(6) ENTRY(7) ENTRY(8) ENTRY(9) ENTRY(10)
ENTRY(11) ENTRY(12) ENTRY(13) ENTRY(14) ENTRY(15) ENTRY(16) ENTRY(17) ENTRY(18) ENTRY(19) ENTRY(20) ENTRY(21)
ENTRY(22) ENTRY(23) ENTRY(24) ENTRY(25) ENTRY(26) ENTRY(27) ENTRY(28) ENTRY(29) ENTRY(30) ENTRY(31)
/* clang-format on */

/* Gives the lines that describe the tasks, as an output. `build` calls it, no node does. */
EXPORT("pcluster_describe") int32_t describe(void)
{
    return task_describe();
}
