/*
 * Tasks for pcluster in C11, and in languages that can include a C header, as C++ and Zig.
 *
 *     #include <pcluster.h>
 *
 *     static pcluster_status greet(pcluster_reader *item)
 *     {
 *         pcluster_span name = pcluster_field_text(item, "name");
 *         pcluster_writer out = PCLUSTER_WRITER;
 *         pcluster_put_map(&out, 1);
 *         pcluster_put_text(&out, "hello");
 *         pcluster_put_span(&out, name);
 *         pcluster_emit(&out);
 *         return PCLUSTER_DONE;
 *     }
 *
 *     PCLUSTER_TASK(greet, greet)
 *
 * Who frees what: the item, the context and the answers of calls belong to the SDK, which frees them when the task has returned.
 * A writer is empty after pcluster_emit. What a task allocates itself is the task's.
 *
 * Compiled for the machine instead of WebAssembly, a task runs in a unit test: see pcluster/test.h.
 */
#ifndef PCLUSTER_H
#define PCLUSTER_H

#include <stdarg.h>

#include "pcluster/write.h"

#ifdef __cplusplus
#define PCLUSTER_C extern "C"
#else
#define PCLUSTER_C
#endif

/* How a task ends. Outputs count only after PCLUSTER_DONE. */
typedef enum pcluster_status {
    /* The item is handled. If nothing was emitted, it is dropped. */
    PCLUSTER_DONE = 0,
    /* Another attempt may succeed. */
    PCLUSTER_FAILED = 1,
    /* No attempt can succeed. */
    PCLUSTER_FATAL = 2
} pcluster_status;

/* The level of a log line. */
typedef enum pcluster_level {
    PCLUSTER_ERROR = 1,
    PCLUSTER_WARN = 2,
    PCLUSTER_INFO = 3,
    PCLUSTER_DEBUG = 4,
    PCLUSTER_TRACE = 5
} pcluster_level;

/* A task: takes an item, and emits what becomes of it. */
typedef pcluster_status (*pcluster_task)(pcluster_reader *item);

/* What the SDK keeps from one call of the host to the next. One for all files of a plugin. */
typedef struct pcluster_run_state {
    /* What the running item, the `config` or an output is at fault for. */
    pcluster_fault fault;
    /* `true` if the fault is that of an output. */
    bool at_output;
    uint8_t *context, *answer;
    size_t context_size;
    bool seeded;
} pcluster_run_state;

/* Weak, so that each file that includes this header may define it. */
__attribute__((weak)) pcluster_run_state pcluster_current;

#ifdef __wasm__
#define PCLUSTER_IMPORT(name) __attribute__((import_module("pcluster_v1"), import_name(name)))
#define PCLUSTER_EXPORT(name) __attribute__((export_name(name)))
/* Describes a task in the custom section `pcluster`. */
#define PCLUSTER_DESCRIBE(name, more) \
    __asm__(".section .custom_section.pcluster,\"\",@\n" \
            ".ascii \"{\\\"abi\\\":1,\\\"name\\\":\\\"" #name "\\\"" more "}\\n\"\n");
#else
#define PCLUSTER_IMPORT(name)
#define PCLUSTER_EXPORT(name)
#define PCLUSTER_DESCRIBE(name, more)
#endif

#ifdef __cplusplus
extern "C" {
#endif
/* The functions of the host. */
PCLUSTER_IMPORT("emit") void pcluster_host_emit(const void *item, size_t size);
PCLUSTER_IMPORT("emit_to") void pcluster_host_emit_to(const char *topic, size_t length, const void *item, size_t size);
PCLUSTER_IMPORT("fail") void pcluster_host_fail(const char *reason, size_t length);
PCLUSTER_IMPORT("log") void pcluster_host_log(int32_t level, const char *line, size_t length);
PCLUSTER_IMPORT("context_len") int32_t pcluster_host_context_len(void);
PCLUSTER_IMPORT("context_read") void pcluster_host_context_read(void *to);
PCLUSTER_IMPORT("call") int32_t pcluster_host_call(const char *name, size_t length, const void *request, size_t size);
PCLUSTER_IMPORT("call_read") void pcluster_host_call_read(void *to);
PCLUSTER_IMPORT("retry_after") void pcluster_host_retry_after(int64_t millis);
#ifdef __cplusplus
}
#endif

/* Allocates memory for the SDK. The instance ends if there is none. */
static inline uint8_t *pcluster_allocate(size_t size)
{
    uint8_t *memory = (uint8_t *)malloc(size + 1);
    if (!memory)
        abort();
    return memory;
}

/* Writes a log line of this length. */
static inline void pcluster_log_text(pcluster_level level, const char *line, size_t length)
{
    pcluster_host_log((int32_t)level, line, length);
}

/* Gives the reason of a failure, of this length. Returns the status to return. */
static inline pcluster_status pcluster_fail_text(pcluster_status status, const char *reason, size_t length)
{
    pcluster_host_fail(reason, length);
    return status;
}

/* The most bytes of a log line or reason that is given as a format. */
#define PCLUSTER_LINE 1024

#define PCLUSTER_FORMATTED __attribute__((format(printf, 2, 3)))

static inline size_t pcluster_format(char *line, const char *format, va_list arguments)
{
    int length = vsnprintf(line, PCLUSTER_LINE, format, arguments);
    return length < 0 ? 0 : length < PCLUSTER_LINE ? (size_t)length : PCLUSTER_LINE - 1;
}

/* Writes a log line. */
PCLUSTER_FORMATTED static inline void pcluster_log(pcluster_level level, const char *format, ...)
{
    char line[PCLUSTER_LINE];
    va_list arguments;
    va_start(arguments, format);
    pcluster_log_text(level, line, pcluster_format(line, format, arguments));
    va_end(arguments);
}

/* Fails the item with a reason: `return pcluster_fail(PCLUSTER_FATAL, "no price")`, or PCLUSTER_FAILED to try again. */
PCLUSTER_FORMATTED static inline pcluster_status pcluster_fail(pcluster_status status, const char *format, ...)
{
    char line[PCLUSTER_LINE];
    va_list arguments;
    va_start(arguments, format);
    pcluster_fail_text(status, line, pcluster_format(line, format, arguments));
    va_end(arguments);
    return status;
}

/* Fails the item. The next attempt waits this long, at most an hour, in place of the stage's back-off. */
PCLUSTER_FORMATTED static inline pcluster_status pcluster_retry_after(int64_t millis, const char *format, ...)
{
    char line[PCLUSTER_LINE];
    va_list arguments;
    va_start(arguments, format);
    pcluster_fail_text(PCLUSTER_FAILED, line, pcluster_format(line, format, arguments));
    va_end(arguments);
    pcluster_host_retry_after(millis);
    return PCLUSTER_FAILED;
}

static inline void pcluster_emit_topic(pcluster_writer *writer, const char *topic)
{
    size_t size = writer->length;
    const char *wrong = pcluster_check(pcluster_written(writer), &size);
    if (!wrong && topic)
        pcluster_host_emit_to(topic, strlen(topic), pcluster_written(writer), size);
    else if (!wrong)
        pcluster_host_emit(pcluster_written(writer), size);
    else if (!pcluster_current.fault.text[0]) {
        snprintf(pcluster_current.fault.text, sizeof pcluster_current.fault.text, "%s", wrong);
        pcluster_current.at_output = true;
    }
    pcluster_clear(writer);
}

/* Emits what is written, one item, and empties the writer. */
static inline void pcluster_emit(pcluster_writer *writer)
{
    pcluster_emit_topic(writer, NULL);
}

/* Emits what is written with another topic than the item's. "": with none. */
static inline void pcluster_emit_to(pcluster_writer *writer, const char *topic)
{
    pcluster_emit_topic(writer, topic);
}

/* Returns the context: a map with `chain`, `version`, `revision`, `stage`, `topic`, `id`, `attempt` and `config`. */
static inline pcluster_reader pcluster_context(void)
{
    if (!pcluster_current.context) {
        pcluster_current.context_size = (size_t)pcluster_host_context_len();
        pcluster_current.context = pcluster_allocate(pcluster_current.context_size);
        pcluster_host_context_read(pcluster_current.context);
        if (pcluster_check(pcluster_current.context, &pcluster_current.context_size))
            abort();
    }
    pcluster_reader context = {pcluster_current.context, pcluster_current.context + pcluster_current.context_size, NULL,
                               &pcluster_current.fault};
    return context;
}

/* Returns the id of the item. It is the same for each attempt. */
static inline pcluster_span pcluster_id(void)
{
    pcluster_reader context = pcluster_context();
    return pcluster_field_text(&context, "id");
}

/* Returns the number of the attempt: 1 for the first on this item. */
static inline unsigned pcluster_attempt(void)
{
    pcluster_reader context = pcluster_context();
    return (unsigned)pcluster_field_integer(&context, "attempt");
}

/* Returns the topic of the item. It is empty if the item has none. */
static inline pcluster_span pcluster_topic(void)
{
    pcluster_reader context = pcluster_context();
    pcluster_span none = {"", 0};
    return pcluster_has(&context, "topic") ? pcluster_field_text(&context, "topic") : none;
}

/* Returns the stage's `config`. It is an empty map if the stage has none. */
static inline pcluster_reader pcluster_config(void)
{
    static const uint8_t empty[] = {0xa0};
    pcluster_reader context = pcluster_context(), none = {empty, empty + sizeof empty, NULL, &pcluster_current.fault};
    if (!pcluster_has(&context, "config"))
        return none;
    none = pcluster_field(&context, "config");
    none.name = NULL;
    return none;
}

/*
 * Calls the host, as in pcluster_call("kv.get", &request, &answer), and empties the request. Returns true and the answer, or false
 * and the failure: a map with `kind`, `message` and `transient`. Either lasts until the next call.
 */
static inline bool pcluster_call(const char *name, pcluster_writer *request, pcluster_reader *answer)
{
    int32_t result = pcluster_host_call(name, strlen(name), pcluster_written(request), request->length);
    pcluster_clear(request);
    size_t size = (size_t)(result < 0 ? ~result : result);
    free(pcluster_current.answer);
    pcluster_current.answer = pcluster_allocate(size);
    pcluster_host_call_read(pcluster_current.answer);
    if (pcluster_check(pcluster_current.answer, &size))
        size = 0;
    pcluster_reader read = {pcluster_current.answer, pcluster_current.answer + size, NULL, &pcluster_current.fault};
    *answer = read;
    return result >= 0;
}

/* Fails the item as a call has failed: for good, or until later. */
static inline pcluster_status pcluster_fail_call(const pcluster_reader *failure)
{
    pcluster_span message = pcluster_field_text(failure, "message");
    if (!pcluster_field_bool(failure, "transient"))
        return pcluster_fail_text(PCLUSTER_FATAL, message.start, message.length);
    if (pcluster_has(failure, "retry_after_ms"))
        pcluster_host_retry_after(pcluster_field_integer(failure, "retry_after_ms"));
    return pcluster_fail_text(PCLUSTER_FAILED, message.start, message.length);
}

#include "pcluster/run.h"

#ifndef __wasm__
#include "pcluster/test.h"
#endif

#endif
