/* Runs tasks: the exports of a plugin. Part of pcluster.h. */
#ifndef PCLUSTER_RUN_H
#define PCLUSTER_RUN_H

#ifdef __wasm__
PCLUSTER_C __attribute__((import_module("wasi_snapshot_preview1"), import_name("random_get"))) int32_t
pcluster_wasi_random_get(void *to, size_t size);
#endif

/* Seeds `rand` anew. Instances that start from one snapshot would have the same numbers otherwise. */
static inline void pcluster_seed(void)
{
#ifdef __wasm__
    unsigned seed;
    if (pcluster_wasi_random_get(&seed, sizeof seed) == 0)
        srand(seed);
#endif
}

/* Forgets what belongs to an item. */
static inline void pcluster_end(void)
{
    free(pcluster_current.context);
    free(pcluster_current.answer);
    pcluster_current.context = pcluster_current.answer = NULL;
    fflush(stdout);
}

/* Fails an item for good. Zig cannot translate functions with any number of arguments, so this is none. */
static inline pcluster_status pcluster_fail_for(const char *what, const char *why)
{
    char line[PCLUSTER_LINE];
    int length = snprintf(line, sizeof line, "%s: %s", what, why);
    return pcluster_fail_text(PCLUSTER_FATAL, line, length < 0 ? 0 : (size_t)length);
}

/* Fails an item or a state that is at fault, whatever the task returned. */
static inline pcluster_status pcluster_conclude(pcluster_status status, const char *what)
{
    if (status == PCLUSTER_DONE && pcluster_current.fault.text[0]) {
        const char *whose = pcluster_current.at_output ? "an output is not one CBOR item" : what;
        status = pcluster_fail_for(whose, pcluster_current.fault.text);
    }
    pcluster_current.fault.text[0] = 0;
    pcluster_current.at_output = false;
    return status;
}

/* Makes the state of a task unless it is made. */
static inline pcluster_status pcluster_make(pcluster_status (*make)(void), bool *made)
{
    if (*made)
        return PCLUSTER_DONE;
    if (!pcluster_current.seeded)
        pcluster_seed();
    pcluster_status status = pcluster_conclude(make(), "the state cannot be made from the stage's `config`");
    *made = status == PCLUSTER_DONE;
    return status;
}

/* Makes the state of a task before there is an item. */
static inline int32_t pcluster_init(pcluster_status (*make)(void), bool *made)
{
    pcluster_status status = pcluster_make(make, made);
    pcluster_end();
    return (int32_t)status;
}

#ifdef __wasm__
/* Room for an item that is not large. An instance whose memory has grown is made anew after its item, which takes twice as long
 * as to put its memory back. */
__attribute__((weak)) uint8_t pcluster_item_room[65536];
__attribute__((weak)) bool pcluster_item_room_taken;
#endif

/* Returns memory for an item. */
static inline uint8_t *pcluster_take_room(size_t size)
{
#ifdef __wasm__
    if (size <= sizeof pcluster_item_room && !pcluster_item_room_taken) {
        pcluster_item_room_taken = true;
        return pcluster_item_room;
    }
#endif
    return pcluster_allocate(size);
}

/* Returns the memory of an item. */
static inline void pcluster_leave_room(uint8_t *item)
{
#ifdef __wasm__
    if (item == pcluster_item_room) {
        pcluster_item_room_taken = false;
        return;
    }
#endif
    free(item);
}

/* Runs a task on an item, which it frees. `make` makes the state, and is NULL if there is none. */
static inline int32_t pcluster_run(uint8_t *item, size_t size, pcluster_task task, pcluster_status (*make)(void), bool *made)
{
    pcluster_status status = make ? pcluster_make(make, made) : PCLUSTER_DONE;
    if (!pcluster_current.seeded)
        pcluster_seed();
    pcluster_current.seeded = true;
    const char *wrong = status == PCLUSTER_DONE ? pcluster_check(item, &size) : NULL;
    if (wrong)
        status = pcluster_fail_for("the item cannot be read", wrong);
    if (status == PCLUSTER_DONE) {
        pcluster_reader reader = {item, item + size, NULL, &pcluster_current.fault};
        status = pcluster_conclude(task(&reader), "the item does not fit the task");
    }
    pcluster_end();
    pcluster_leave_room(item);
    return (int32_t)status;
}

/* Allocates an item of this size, which pcluster_run frees. */
PCLUSTER_C PCLUSTER_EXPORT("pcluster_alloc") __attribute__((weak)) void *pcluster_alloc(size_t size)
{
    return pcluster_take_room(size);
}

#define PCLUSTER_EXPORT_TASK(name, task, make, made) \
    PCLUSTER_C PCLUSTER_EXPORT("pcluster_task:" #name) int32_t pcluster_task_##name(uint8_t *item, size_t size); \
    int32_t pcluster_task_##name(uint8_t *item, size_t size) \
    { \
        return pcluster_run(item, size, task, make, made); \
    }

/* Makes a function a task of this name. */
#define PCLUSTER_TASK(name, task) \
    PCLUSTER_DESCRIBE(name, "") \
    PCLUSTER_EXPORT_TASK(name, task, NULL, NULL)

/* Makes a function a task with a state, which `pcluster_status make(void)` makes once and keeps in variables of its own. */
#define PCLUSTER_TASK_WITH_STATE(name, task, make) \
    PCLUSTER_DESCRIBE(name, ",\\\"state\\\":\\\"" #make "\\\"") \
    static bool pcluster_made_##name; \
    PCLUSTER_C PCLUSTER_EXPORT("pcluster_init:" #name) int32_t pcluster_init_##name(void); \
    int32_t pcluster_init_##name(void) \
    { \
        return pcluster_init(make, &pcluster_made_##name); \
    } \
    PCLUSTER_EXPORT_TASK(name, task, make, &pcluster_made_##name)

/* Makes a function a task that calls the host: `http`, `kv`, `objects`, `publish` or `secrets`. */
#define PCLUSTER_TASK_THAT_CALLS(name, task, group) \
    PCLUSTER_DESCRIBE(name, ",\\\"calls\\\":[\\\"" #group "\\\"]") \
    PCLUSTER_EXPORT_TASK(name, task, NULL, NULL)

/* Makes a function a task that calls two groups of functions of the host. */
#define PCLUSTER_TASK_THAT_CALLS_BOTH(name, task, one, other) \
    PCLUSTER_DESCRIBE(name, ",\\\"calls\\\":[\\\"" #one "\\\",\\\"" #other "\\\"]") \
    PCLUSTER_EXPORT_TASK(name, task, NULL, NULL)

#endif
