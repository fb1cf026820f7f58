/*
 * Runs tasks in unit tests, compiled for this machine. Part of pcluster.h.
 *
 *     pcluster_writer item = PCLUSTER_WRITER;
 *     pcluster_put_text(&item, "Ada");
 *     assert(pcluster_test_run(pcluster_task_greet, &item) == PCLUSTER_DONE);
 *     assert(pcluster_test_outputs() == 1);
 *     pcluster_reader output = pcluster_test_output(0);
 *
 * A run forgets what the run before has left. The functions are those of one file: include the task's file in that of its test.
 */
#ifndef PCLUSTER_TEST_H
#define PCLUSTER_TEST_H

/* What a run has left, and what the next one gets. */
typedef struct pcluster_test_state {
    pcluster_writer outputs, config, context, answer;
    char reason[PCLUSTER_LINE];
    int64_t delay;
    pcluster_writer log, topics;
    bool (*answers)(const char *name, pcluster_reader *request, pcluster_writer *answer);
    int32_t attempt;
} pcluster_test_state;

__attribute__((weak)) pcluster_test_state pcluster_test;

/* Sets the `config` of the next runs, and empties the writer. */
static inline void pcluster_test_config(pcluster_writer *config)
{
    pcluster_clear(&pcluster_test.config);
    pcluster_put_raw(&pcluster_test.config, pcluster_written(config), config->length);
    pcluster_clear(config);
}

/* Sets the number of the attempt of the next runs. */
static inline void pcluster_test_attempt(int32_t attempt)
{
    pcluster_test.attempt = attempt;
}

/* Sets what answers the calls of the next runs. It writes an answer or a failure, and returns true for an answer. */
static inline void pcluster_test_calls(bool (*answers)(const char *name, pcluster_reader *request, pcluster_writer *answer))
{
    pcluster_test.answers = answers;
}

/* Runs a task, as `pcluster_task_greet`, on an item, and empties the writer. Returns how it ends. */
static inline pcluster_status pcluster_test_run(int32_t (*task)(uint8_t *item, size_t size), pcluster_writer *item)
{
    pcluster_clear(&pcluster_test.outputs);
    pcluster_clear(&pcluster_test.log);
    pcluster_clear(&pcluster_test.topics);
    pcluster_test.reason[0] = 0;
    pcluster_test.delay = -1;
    size_t size = item->length;
    uint8_t *copy = (uint8_t *)pcluster_alloc(size);
    memcpy(copy, pcluster_written(item), size);
    pcluster_clear(item);
    return (pcluster_status)task(copy, size);
}

/* Returns the number of outputs. */
static inline size_t pcluster_test_outputs(void)
{
    size_t outputs = 0;
    for (pcluster_reader all = pcluster_read_written(&pcluster_test.outputs); all.at < all.end; outputs++)
        pcluster_skip(&all);
    return outputs;
}

/* Returns an output, from 0. It has nothing if there is none. */
static inline pcluster_reader pcluster_test_output(size_t output)
{
    pcluster_reader all = pcluster_read_written(&pcluster_test.outputs), one = all;
    for (; output > 0 && all.at < all.end; output--)
        pcluster_skip(&all);
    one = all;
    if (all.at < all.end)
        pcluster_skip(&all);
    one.end = all.at;
    return one;
}

/* Returns the reason of the failure. It is empty if there is none. */
static inline const char *pcluster_test_reason(void)
{
    return pcluster_test.reason;
}

/* Returns how long the next attempt waits, in milliseconds. It is -1 if the stage's back-off decides. */
static inline int64_t pcluster_test_delay(void)
{
    return pcluster_test.delay;
}

/* Returns the log: lines such as "info: hello\n". */
static inline const char *pcluster_test_log(void)
{
    *pcluster_extend(&pcluster_test.log, 1) = 0;
    pcluster_test.log.length--;
    return (const char *)pcluster_written(&pcluster_test.log);
}

/* Returns the topics that outputs were emitted to: lines. */
static inline const char *pcluster_test_topics(void)
{
    *pcluster_extend(&pcluster_test.topics, 1) = 0;
    pcluster_test.topics.length--;
    return (const char *)pcluster_written(&pcluster_test.topics);
}

/* The functions of the host. */

#define PCLUSTER_HOST PCLUSTER_C __attribute__((weak))

PCLUSTER_HOST void pcluster_host_emit(const void *item, size_t size)
{
    pcluster_put_raw(&pcluster_test.outputs, item, size);
}

PCLUSTER_HOST void pcluster_host_emit_to(const char *topic, size_t length, const void *item, size_t size)
{
    pcluster_put_raw(&pcluster_test.topics, topic, length);
    pcluster_put_byte(&pcluster_test.topics, '\n');
    pcluster_host_emit(item, size);
}

PCLUSTER_HOST void pcluster_host_fail(const char *reason, size_t length)
{
    size_t kept = length < sizeof pcluster_test.reason ? length : sizeof pcluster_test.reason - 1;
    memcpy(pcluster_test.reason, reason, kept);
    pcluster_test.reason[kept] = 0;
}

PCLUSTER_HOST void pcluster_host_log(int32_t level, const char *line, size_t length)
{
    static const char *const names[] = {"error", "error", "warn", "info", "debug", "trace"};
    const char *name = names[level < 0 ? 0 : level > 5 ? 5 : level];
    pcluster_put_raw(&pcluster_test.log, name, strlen(name));
    pcluster_put_raw(&pcluster_test.log, ": ", 2);
    pcluster_put_raw(&pcluster_test.log, line, length);
    pcluster_put_byte(&pcluster_test.log, '\n');
}

PCLUSTER_HOST int32_t pcluster_host_context_len(void)
{
    static const char *const texts[] = {"chain", "version", "stage", "id"};
    pcluster_writer *context = &pcluster_test.context;
    pcluster_clear(context);
    pcluster_put_map(context, 7);
    for (size_t at = 0; at < 4; at++) {
        pcluster_put_text(context, texts[at]);
        pcluster_put_text(context, "test");
    }
    pcluster_put_text(context, "revision");
    pcluster_put_unsigned(context, 1);
    pcluster_put_text(context, "attempt");
    pcluster_put_integer(context, pcluster_test.attempt ? pcluster_test.attempt : 1);
    pcluster_put_text(context, "config");
    if (pcluster_test.config.length == 0)
        pcluster_put_null(context);
    pcluster_put_raw(context, pcluster_written(&pcluster_test.config), pcluster_test.config.length);
    return (int32_t)context->length;
}

PCLUSTER_HOST void pcluster_host_context_read(void *to)
{
    memcpy(to, pcluster_written(&pcluster_test.context), pcluster_test.context.length);
}

PCLUSTER_HOST int32_t pcluster_host_call(const char *name, size_t length, const void *request, size_t size)
{
    (void)length;
    pcluster_clear(&pcluster_test.answer);
    pcluster_reader reader = {(const uint8_t *)request, (const uint8_t *)request + size, NULL, NULL};
    bool good = pcluster_test.answers && pcluster_test.answers(name, &reader, &pcluster_test.answer);
    if (!pcluster_test.answers) {
        static const char denied[] = "\xa3\x64kind\x66" "denied\x67message\x72nothing answers it\x69transient\xf4";
        pcluster_put_raw(&pcluster_test.answer, denied, sizeof denied - 1);
    }
    return good ? (int32_t)pcluster_test.answer.length : ~(int32_t)pcluster_test.answer.length;
}

PCLUSTER_HOST void pcluster_host_call_read(void *to)
{
    memcpy(to, pcluster_written(&pcluster_test.answer), pcluster_test.answer.length);
}

PCLUSTER_HOST void pcluster_host_retry_after(int64_t millis)
{
    pcluster_test.delay = millis;
}

#endif
