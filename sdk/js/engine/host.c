/* The functions of the node and of WASI, as JavaScript sees them. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"

#define IMPORT(NAME) __attribute__((import_module("pcluster_v1"), import_name(NAME)))

IMPORT("emit") void abi_emit(const void *bytes, size_t length);
IMPORT("emit_to") void abi_emit_to(const void *topic, size_t topic_length, const void *bytes, size_t length);
IMPORT("fail") void abi_fail(const void *reason, size_t length);
IMPORT("log") void abi_log(int32_t level, const void *text, size_t length);
IMPORT("retry_after") void abi_retry_after(int64_t millis);
IMPORT("next") int32_t abi_next(int32_t status);
IMPORT("item_read") void abi_item_read(void *to);
IMPORT("context_len") size_t abi_context_len(void);
IMPORT("context_read") void abi_context_read(void *to);
/* A plugin whose tasks list no calls is built without this import and the next. */
IMPORT("call") int32_t abi_call(const void *name, size_t name_length, const void *request, size_t length);
IMPORT("call_read") void abi_call_read(void *to);

extern char **environ;

bool is_muted, has_timers;

void host_give(const uint8_t *output, size_t length, const char *topic)
{
    if (is_muted)
        return;
    if (topic)
        abi_emit_to(topic, strlen(topic), output, length);
    else
        abi_emit(output, length);
}

void host_say_why(const char *reason, size_t length)
{
    abi_fail(reason, length);
}

int32_t host_next(int32_t status)
{
    return abi_next(status);
}

void host_read_item(uint8_t *to)
{
    abi_item_read(to);
}

uint64_t host_random(void)
{
    uint64_t number;
    if (getentropy(&number, sizeof number) != 0)
        abort();
    return number;
}

/* `log(level, text)`. */
static JSValue host_log(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    int32_t level;
    size_t length;
    if (is_muted)
        return JS_UNDEFINED;
    const char *text = JS_ToCStringLen(context, &length, arguments[1]);
    if (!text || JS_ToInt32(context, &level, arguments[0]) < 0)
        return JS_EXCEPTION;
    abi_log(level, text, length);
    JS_FreeCString(context, text);
    return JS_UNDEFINED;
}

/* `fail(reason)`. */
static JSValue host_fail(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    size_t length;
    const char *text = JS_ToCStringLen(context, &length, arguments[0]);
    if (!text)
        return JS_EXCEPTION;
    abi_fail(text, length);
    JS_FreeCString(context, text);
    return JS_UNDEFINED;
}

/* `retryAfter(milliseconds)`. */
static JSValue host_retry_after(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    int64_t millis;
    if (JS_ToInt64(context, &millis, arguments[0]) < 0)
        return JS_EXCEPTION;
    abi_retry_after(millis);
    return JS_UNDEFINED;
}

/* `context()`: the context as an object. */
static JSValue host_context(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count, (void)arguments;
    size_t length = abi_context_len();
    uint8_t *bytes = js_malloc(context, length + 1);
    if (!bytes)
        return JS_EXCEPTION;
    abi_context_read(bytes);
    JSValue value = read_item(bytes, length);
    js_free(context, bytes);
    return value;
}

/* `call(name, request)`: `[true, response]` or `[false, failure]`. */
static JSValue host_call(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    size_t name_length;
    /* An output that is being written must not be lost: nothing writes one while a task runs. */
    const char *name = JS_ToCStringLen(context, &name_length, arguments[0]);
    if (!name || !write_item(arguments[1])) {
        JS_FreeCString(context, name);
        return JS_EXCEPTION;
    }
    int32_t answered = abi_call(name, name_length, written, written_length);
    JS_FreeCString(context, name);
    size_t length = answered < 0 ? ~answered : answered;
    uint8_t *bytes = js_malloc(context, length + 1);
    if (!bytes)
        return JS_EXCEPTION;
    abi_call_read(bytes);
    JSValue value = read_item(bytes, length);
    js_free(context, bytes);
    if (JS_IsException(value))
        return value;
    JSValue answer[2] = {JS_NewBool(context, answered >= 0), value};
    return JS_NewArrayFrom(context, 2, answer);
}

/* `random(length)`: bytes that nobody can guess. */
static JSValue host_random_bytes(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    /* What one call gives. */
    enum { MOST = 256 };
    uint32_t length;
    if (JS_ToUint32(context, &length, arguments[0]) < 0)
        return JS_EXCEPTION;
    uint8_t *bytes = js_malloc(context, length + 1);
    if (!bytes)
        return JS_EXCEPTION;
    for (uint32_t done = 0; done < length; done += MOST)
        if (getentropy(bytes + done, length - done < MOST ? length - done : MOST) != 0)
            abort();
    JSValue value = JS_NewUint8ArrayCopy(context, bytes, length);
    js_free(context, bytes);
    return value;
}

/* `monotonic()`: milliseconds since some moment. */
static JSValue host_monotonic(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count, (void)arguments;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return JS_NewFloat64(context, now.tv_sec * 1e3 + now.tv_nsec / 1e6);
}

/* `timed()`: there are timers now. */
static JSValue host_timed(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)context, (void)self, (void)count, (void)arguments;
    has_timers = true;
    return JS_UNDEFINED;
}

/* `environment()`: the variables of the stage. */
static JSValue host_environment(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count, (void)arguments;
    JSValue object = JS_NewObject(context);
    for (char **each = environ; each && *each; each++) {
        char *equals = strchr(*each, '=');
        if (!equals)
            continue;
        JSAtom name = JS_NewAtomLen(context, *each, equals - *each);
        JS_DefinePropertyValue(context, object, name, JS_NewString(context, equals + 1), JS_PROP_C_W_E);
        JS_FreeAtom(context, name);
    }
    return object;
}

/* `file(path, from, length)`: the bytes of a file of the plugin, or a part of them. `undefined` if there is none. */
static JSValue host_file(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self;
    size_t length;
    uint32_t from = 0, most = UINT32_MAX;
    File found;
    const char *path = JS_ToCStringLen(context, &length, arguments[0]);
    if (!path)
        return JS_EXCEPTION;
    bool is_found = file_find(path, length, &found);
    JS_FreeCString(context, path);
    if (count > 2 && (JS_ToUint32(context, &from, arguments[1]) < 0 || JS_ToUint32(context, &most, arguments[2]) < 0))
        return JS_EXCEPTION;
    if (!is_found)
        return JS_UNDEFINED;
    from = from < found.length ? from : found.length;
    length = found.length - from < most ? found.length - from : most;
    return JS_NewUint8ArrayCopy(context, (const uint8_t *)found.content + from, length);
}

/* `module(path)`: what a module of the plugin exports. */
static JSValue host_module(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    const char *path = JS_ToCString(context, arguments[0]);
    if (!path)
        return JS_EXCEPTION;
    JSValue namespace = file_import(path);
    JS_FreeCString(context, path);
    return namespace;
}

static const JSCFunctionListEntry FUNCTIONS[] = {
    JS_CFUNC_DEF("log", 2, host_log),
    JS_CFUNC_DEF("fail", 1, host_fail),
    JS_CFUNC_DEF("retryAfter", 1, host_retry_after),
    JS_CFUNC_DEF("context", 0, host_context),
    JS_CFUNC_DEF("call", 2, host_call),
    JS_CFUNC_DEF("random", 1, host_random_bytes),
    JS_CFUNC_DEF("monotonic", 0, host_monotonic),
    JS_CFUNC_DEF("timed", 0, host_timed),
    JS_CFUNC_DEF("environment", 0, host_environment),
    JS_CFUNC_DEF("file", 1, host_file),
    JS_CFUNC_DEF("module", 1, host_module),
    JS_CFUNC_DEF("encode", 1, text_encode),
    JS_CFUNC_DEF("decode", 2, text_decode),
};

JSValue host_functions(void)
{
    JSValue functions = JS_NewObject(js);
    JS_SetPropertyFunctionList(js, functions, FUNCTIONS, sizeof FUNCTIONS / sizeof *FUNCTIONS);
    return functions;
}
