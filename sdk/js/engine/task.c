/* A task: how it is made ready, and what becomes of an item. */
#include <stdlib.h>

#include "engine.h"

JSContext *js;
Sdk sdk;

/* The number of the task that is ready, and its function. */
static int32_t ready = -1;
static JSValue function, state;
static bool has_state, is_renewed;

/* The end of the stack, which grows down. The linker sets it. */
extern char __stack_high;

/* What QuickJS may use of the stack. A node gives 512 KiB of another stack to WebAssembly, which calls exhaust sooner than this one. */
enum { STACK = 128 << 10 };

/* The bytes that are free for blocks of each size when an item begins. */
enum { ROOM = 128 << 10 };

/* The key of `next`, in generators. */
static JSAtom next_name, value_name, done_name, topic_name;

static int own_module(JSContext *context, JSModuleDef *module)
{
    (void)context;
    return JS_SetModuleExport(js, module, "default", host_functions());
}

/* Takes what the SDK's JavaScript offers. */
static bool adopt(JSValueConst namespace)
{
    struct {
        const char *name;
        JSValue *to;
    } offered[] = {
        {"load", &sdk.load},     {"failed", &sdk.failed}, {"describe", &sdk.describe}, {"fire", &sdk.fire}, {"forget", &sdk.forget},
        {"tagged", &sdk.tagged}, {"bigint", &sdk.bigint}, {"standIn", &sdk.stand_in},  {"tag", &sdk.tag},   {"topic", &sdk.topic},
    };
    for (size_t index = 0; index < sizeof offered / sizeof *offered; index++) {
        *offered[index].to = JS_GetPropertyStr(js, namespace, offered[index].name);
        if (JS_IsException(*offered[index].to))
            return false;
    }
    return true;
}

/* Starts the interpreter, and imports the SDK. The author's modules are imported with the first task. */
static bool start(void)
{
    if (js)
        return true;
    JSRuntime *runtime = JS_NewRuntime();
    js = runtime ? JS_NewContext(runtime) : NULL;
    if (!js)
        return false;
    inside_limit_stack(runtime, (uintptr_t)&__stack_high - STACK);
    /* Nothing is worth collecting until the task is ready. */
    JS_SetGCThreshold(runtime, 64 << 20);
    loop_watch(runtime);
    files_serve_modules(runtime);
    next_name = JS_NewAtom(js, "next");
    value_name = JS_NewAtom(js, "value");
    done_name = JS_NewAtom(js, "done");
    topic_name = JS_NewAtom(js, "topic");
    JSModuleDef *own = JS_NewCModule(js, "pcluster/sandbox/native.js", own_module);
    if (!own || JS_AddModuleExport(js, own, "default") < 0)
        return false;
    JSValue namespace = file_import("pcluster/sandbox/sandbox.js");
    bool is_started = !JS_IsException(namespace) && adopt(namespace);
    JS_FreeValue(js, namespace);
    return is_started;
}

static int32_t tell(Fault fault)
{
    static const char LOST[] = "the task failed, and so did telling why";
    static const char NO_MEMORY[] = "out of memory (the stage's `memory` sets how much an item may have)";
    if (!js) {
        host_say_why("there is too little memory to start", 35);
        return FAILED;
    }
    JSValue error = JS_GetException(js), status = JS_EXCEPTION;
    if (JS_IsFunction(js, sdk.failed)) {
        JSValue arguments[2] = {error, JS_NewInt32(js, fault)};
        status = JS_Call(js, sdk.failed, JS_UNDEFINED, 2, arguments);
    }
    int32_t number = FAILED;
    if (JS_IsException(status) && JS_IsNull(error)) {
        /* QuickJS throws null where it has no memory for an error. */
        host_say_why(NO_MEMORY, sizeof NO_MEMORY - 1);
    } else if (JS_IsException(status)) {
        const char *text = JS_ToCString(js, error);
        host_say_why(text ? text : LOST, text ? strlen(text) : sizeof LOST - 1);
        JS_FreeCString(js, text);
    } else {
        JS_ToInt32(js, &number, status);
    }
    JS_FreeValue(js, status);
    JS_FreeValue(js, error);
    return number;
}

/* Makes the state of a task from the stage's `config`. */
static bool make_state(JSValueConst init, JSValueConst config)
{
    has_state = JS_IsFunction(js, init);
    if (!has_state)
        return true;
    JSValue made = loop_settle(JS_Call(js, init, JS_UNDEFINED, 1, &config));
    if (JS_IsException(made))
        return false;
    state = made;
    return true;
}

static bool give(JSValueConst value)
{
    JSValue inner = JS_UNDEFINED;
    const char *topic = NULL;
    bool is_topic = JS_IsObject(value) && inside_has_prototype(value, sdk.topic);
    if (is_topic) {
        JSValue name = JS_GetProperty(js, value, topic_name);
        inner = JS_GetProperty(js, value, value_name);
        topic = JS_ToCString(js, name);
        JS_FreeValue(js, name);
    }
    bool is_written = (!is_topic || topic) && write_item(is_topic ? inner : value);
    if (is_written)
        host_give(written, written_length, topic);
    JS_FreeCString(js, topic);
    JS_FreeValue(js, inner);
    return is_written;
}

/* Gives each output of a generator. */
static bool give_all(JSValueConst generator, Fault *fault)
{
    for (;;) {
        *fault = IN_TASK;
        JSValue step = loop_settle(JS_Invoke(js, generator, next_name, 0, NULL));
        if (JS_IsException(step))
            return false;
        JSValue done = JS_GetProperty(js, step, done_name), value = JS_GetProperty(js, step, value_name);
        bool is_done = JS_ToBool(js, done);
        JS_FreeValue(js, step);
        *fault = IN_OUTPUT;
        bool is_given = is_done || give(value);
        JS_FreeValue(js, value);
        if (is_done || !is_given)
            return is_given;
    }
}

static bool handle(JSValueConst item, Fault *fault)
{
    *fault = IN_TASK;
    JSValue arguments[2] = {item, state};
    JSValue result = loop_settle(JS_Call(js, function, JS_UNDEFINED, has_state ? 2 : 1, arguments));
    if (JS_IsException(result))
        return false;
    bool is_given = true;
    if (!JS_IsUndefined(result)) {
        Kind kind = JS_IsObject(result) ? inside_kind(result) : OTHER;
        *fault = IN_OUTPUT;
        is_given = kind == GENERATOR || kind == ASYNC_GENERATOR ? give_all(result, fault) : give(result);
    }
    JS_FreeValue(js, result);
    if (!is_given)
        return false;
    *fault = IN_TASK;
    return loop_end();
}

/* Runs the examples of a task, which give nothing. */
static bool run_examples(JSValueConst examples, Fault *fault)
{
    int64_t count = 0;
    *fault = IN_TASK;
    if (JS_GetLength(js, examples, &count) < 0)
        return false;
    is_muted = true;
    bool is_done = true;
    for (int64_t index = 0; index < count && is_done; index++) {
        JSValue item = JS_GetPropertyInt64(js, examples, index);
        *fault = IN_ITEM;
        is_done = write_item(item);
        JS_FreeValue(js, item);
        item = is_done ? read_item(written, written_length) : JS_EXCEPTION;
        is_done = !JS_IsException(item) && handle(item, fault);
        JS_FreeValue(js, item);
    }
    is_muted = false;
    return is_done;
}

/*
 * Lets the memory have room for what an item needs for a while. Memory that grows while an item runs makes its instance cost more
 * than most items: it is not put back to its start, but made anew.
 *
 * The allocator keeps what is freed for blocks of about the same size, so there is room for each size. It hands out first what was
 * freed last: freed in this order, that is from the lowest address on, and few pages are written to.
 */
static void keep_room(void)
{
    enum { HEAD = 32, LEAST = 64, MOST = 32 << 10 };
    for (size_t size = LEAST; size <= MOST; size *= 2) {
        void **last = NULL;
        for (size_t number = 0; number < ROOM / size; number++) {
            void **block = malloc(size - HEAD);
            if (block == NULL)
                break;
            *block = last;
            last = block;
        }
        while (last != NULL) {
            void **before = *last;
            free(last);
            last = before;
        }
    }
}

/* Makes a task ready, with its state, and with its examples if they are wanted. */
static bool prepare(int32_t number, bool wants_examples, Fault *fault)
{
    *fault = IN_TASK;
    if (ready == number)
        return true;
    if (!start())
        return false;
    JSValue argument = JS_NewInt32(js, number);
    JSValue loaded = JS_Call(js, sdk.load, JS_UNDEFINED, 1, &argument);
    if (JS_IsException(loaded))
        return false;
    JSValue init = JS_GetPropertyUint32(js, loaded, 1), config = JS_GetPropertyUint32(js, loaded, 2);
    JSValue examples = JS_GetPropertyUint32(js, loaded, 3);
    function = JS_GetPropertyUint32(js, loaded, 0);
    bool is_ready = make_state(init, config) && loop_end() && (!wants_examples || run_examples(examples, fault));
    JS_FreeValue(js, examples);
    JS_FreeValue(js, config);
    JS_FreeValue(js, init);
    JS_FreeValue(js, loaded);
    if (is_ready) {
        ready = number;
        inside_settle_memory(JS_GetRuntime(js));
        keep_room();
    }
    return is_ready;
}

int32_t task_load(int32_t number)
{
    Fault fault;
    if (!prepare(number, true, &fault))
        return tell(fault);
    is_renewed = false;
    return DONE;
}

int32_t task_run(int32_t number, const uint8_t *bytes, size_t length)
{
    Fault fault;
    if (!prepare(number, false, &fault))
        return tell(fault);
    if (!is_renewed) {
        inside_seed(js, host_random());
        is_renewed = true;
    }
    JSValue item = read_item(bytes, length);
    if (JS_IsException(item))
        return tell(IN_ITEM);
    bool is_handled = handle(item, &fault);
    JS_FreeValue(js, item);
    return is_handled ? DONE : tell(fault);
}

int32_t task_describe(void)
{
    JSValue lines = start() ? JS_Call(js, sdk.describe, JS_UNDEFINED, 0, NULL) : JS_EXCEPTION;
    if (JS_IsException(lines))
        return tell(IN_TASK);
    size_t length;
    const char *text = JS_ToCStringLen(js, &length, lines);
    host_give((const uint8_t *)text, length, NULL);
    JS_FreeCString(js, text);
    JS_FreeValue(js, lines);
    return DONE;
}
