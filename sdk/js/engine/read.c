/* From CBOR to JavaScript. */
#include <math.h>
#include <stdlib.h>

#include "engine.h"

enum { UNSIGNED, NEGATIVE, BYTE_STRING, TEXT, ARRAY, PAIRS, TAG, SIMPLE };

/* The additional information of a head whose value has no length. */
#define OPEN 31
/* The end of a value without a length. */
#define BREAK 0xff

static const uint8_t *at, *end;

/* The values of lists and maps that are not whole yet. */
static JSValue *parts;
static size_t parts_count, parts_room;

typedef struct {
    uint8_t major, info;
    uint64_t number;
} Head;

static JSValue read_value(int depth);

static JSValue refuse(const char *why)
{
    return JS_ThrowPlainError(js, "%s", why);
}

static JSValue invalid(void)
{
    return refuse("not valid CBOR");
}

/* Returns the bytes that come next. NULL if there are too few. */
static const uint8_t *take(uint64_t length)
{
    /* A length of 2^32 and more must not be cut to a small one. */
    if (length > (uint64_t)(end - at)) {
        refuse("the data ends too early");
        return NULL;
    }
    const uint8_t *taken = at;
    at += length;
    return taken;
}

static bool read_head(Head *head)
{
    const uint8_t *first = take(1);
    if (!first)
        return false;
    head->major = *first >> 5;
    head->info = *first & 31;
    head->number = head->info == OPEN ? 0 : head->info;
    if (head->info < 24 || head->info == OPEN)
        return true;
    if (head->info > 27) {
        invalid();
        return false;
    }
    size_t more = 1 << (head->info - 24);
    const uint8_t *bytes = take(more);
    if (!bytes)
        return false;
    head->number = 0;
    for (size_t index = 0; index < more; index++)
        head->number = head->number << 8 | bytes[index];
    return true;
}

/* Goes on behind the end of a value without a length. Returns false if it is not the end yet. */
static bool is_over(void)
{
    if (at == end || *at != BREAK)
        return false;
    at++;
    return true;
}

static bool push(JSValue value)
{
    if (parts_count == parts_room) {
        size_t room = parts_room ? 2 * parts_room : 256;
        JSValue *grown = realloc(parts, room * sizeof *parts);
        if (!grown) {
            JS_FreeValue(js, value);
            JS_ThrowOutOfMemory(js);
            return false;
        }
        parts = grown;
        parts_room = room;
    }
    parts[parts_count++] = value;
    return true;
}

/* A key that is a name of properties already. No value of JavaScript has this tag. */
#define NAME_TAG JS_TAG_CATCH_OFFSET

static bool is_name(JSValueConst part)
{
    return JS_VALUE_GET_TAG(part) == NAME_TAG;
}

static void drop_to(size_t count)
{
    while (parts_count > count) {
        JSValue part = parts[--parts_count];
        if (is_name(part))
            JS_FreeAtom(js, JS_VALUE_GET_INT(part));
        else
            JS_FreeValue(js, part);
    }
}

/* Finds the bytes of a string. Those of one in pieces are put together in `*made`, which the caller frees. */
static bool read_string(const Head *head, const uint8_t **bytes, size_t *length, uint8_t **made)
{
    *made = NULL;
    if (head->info != OPEN) {
        *length = head->number;
        return (*bytes = take(head->number)) != NULL;
    }
    size_t total = 0;
    while (!is_over()) {
        Head piece;
        if (!read_head(&piece))
            return false;
        if (piece.major != head->major || piece.info == OPEN) {
            invalid();
            return false;
        }
        const uint8_t *from = take(piece.number);
        uint8_t *grown = from ? js_realloc(js, *made, total + piece.number + 1) : NULL;
        if (!grown)
            return false;
        *made = grown;
        memcpy(grown + total, from, piece.number);
        total += piece.number;
    }
    *bytes = *made ? *made : at;
    *length = total;
    return true;
}

static JSValue text_of(const uint8_t *bytes, size_t length)
{
    if (!text_is_valid(bytes, length))
        return refuse("a text that is not UTF-8");
    return JS_NewStringLen(js, (const char *)bytes, length);
}

static JSValue string(const Head *head)
{
    const uint8_t *bytes;
    uint8_t *made;
    size_t length;
    JSValue value = JS_EXCEPTION;
    if (read_string(head, &bytes, &length, &made))
        value = head->major == TEXT ? text_of(bytes, length) : JS_NewUint8ArrayCopy(js, bytes, length);
    js_free(js, made);
    return value;
}

/* Refuses a length for which there are too few bytes, before memory is set aside for it. */
static bool claim(const Head *head)
{
    if (head->info == OPEN || head->number <= (uint64_t)(end - at))
        return true;
    refuse("the data ends too early");
    return false;
}

static JSValue list(const Head *head, int depth)
{
    if (!claim(head))
        return JS_EXCEPTION;
    size_t start = parts_count;
    for (uint64_t left = head->number;; left--) {
        if (head->info == OPEN ? is_over() : left == 0)
            break;
        JSValue value = read_value(depth + 1);
        if (JS_IsException(value) || !push(value)) {
            drop_to(start);
            return JS_EXCEPTION;
        }
    }
    size_t count = parts_count - start;
    parts_count = start;
    return JS_NewArrayFrom(js, count, parts + start);
}

/* Makes an object of pairs whose keys are texts. */
static JSValue object(size_t start)
{
    JSValue made = JS_NewObject(js);
    for (size_t index = start; index < parts_count && !JS_IsException(made); index += 2) {
        JSAtom name = is_name(parts[index]) ? (JSAtom)JS_VALUE_GET_INT(parts[index]) : JS_ValueToAtom(js, parts[index]);
        JSValue value = parts[index + 1];
        parts[index + 1] = JS_UNDEFINED;
        if (JS_DefinePropertyValue(js, made, name, value, JS_PROP_C_W_E) < 0) {
            JS_FreeValue(js, made);
            made = JS_EXCEPTION;
        }
        if (!is_name(parts[index]))
            JS_FreeAtom(js, name);
    }
    return made;
}

/* Makes a `Map` of pairs. */
static JSValue map(size_t start)
{
    JSValue list = JS_NewArray(js);
    for (size_t index = start; index < parts_count; index += 2) {
        if (is_name(parts[index])) {
            JSAtom name = JS_VALUE_GET_INT(parts[index]);
            parts[index] = JS_AtomToString(js, name);
            JS_FreeAtom(js, name);
        }
        double key;
        if (JS_IsNumber(parts[index]) && JS_ToFloat64(js, &key, parts[index]) == 0 && key == 0 && signbit(key)) {
            JS_FreeValue(js, list);
            return refuse("-0 is a key, which JavaScript cannot hold");
        }
        JSValue pair[2] = {JS_DupValue(js, parts[index]), JS_DupValue(js, parts[index + 1])};
        JS_SetPropertyUint32(js, list, (index - start) / 2, JS_NewArrayFrom(js, 2, pair));
    }
    JSValue global = JS_GetGlobalObject(js), constructor = JS_GetPropertyStr(js, global, "Map");
    JSValue made = JS_CallConstructor(js, constructor, 1, &list);
    JS_FreeValue(js, constructor);
    JS_FreeValue(js, global);
    JS_FreeValue(js, list);
    return made;
}

/* Reads a key. One of a few letters becomes a name at once, most of which are there already. */
static JSValue read_key(int depth)
{
    enum { SHORT = 24 };
    size_t length = at < end ? *at - (TEXT << 5) : SHORT;
    if (length == 0 || length >= SHORT || length > (size_t)(end - at - 1) || at[1] < 'A')
        return read_value(depth);
    for (size_t index = 1; index <= length; index++)
        if (at[index] >= 0x80)
            return read_value(depth);
    JSAtom name = JS_NewAtomLen(js, (const char *)at + 1, length);
    at += 1 + length;
    return name == JS_ATOM_NULL ? JS_EXCEPTION : JS_MKVAL(NAME_TAG, name);
}

static JSValue pairs(const Head *head, int depth)
{
    if (!claim(head))
        return JS_EXCEPTION;
    size_t start = parts_count;
    bool is_object = true;
    JSValue made = JS_EXCEPTION;
    for (uint64_t left = head->number;; left--) {
        if (head->info == OPEN ? is_over() : left == 0) {
            made = is_object ? object(start) : map(start);
            break;
        }
        JSValue key = read_key(depth + 1);
        if (JS_IsException(key) || !push(key))
            break;
        is_object = is_object && (is_name(key) || JS_IsString(key));
        JSValue value = read_value(depth + 1);
        if (JS_IsException(value) || !push(value))
            break;
    }
    drop_to(start);
    return made;
}

static JSValue tag(uint64_t number, int depth)
{
    if (number == 2 || number == 3) {
        Head head;
        const uint8_t *bytes;
        uint8_t *made;
        size_t length;
        if (!read_head(&head))
            return JS_EXCEPTION;
        if (head.major != BYTE_STRING)
            return refuse("a large integer that is not a byte string");
        JSValue value = JS_EXCEPTION;
        if (read_string(&head, &bytes, &length, &made))
            value = read_large_integer(bytes, length, number == 3);
        js_free(js, made);
        return value;
    }
    JSValue arguments[2] = {read_integer(number, false), read_value(depth + 1)};
    JSValue made = JS_EXCEPTION;
    if (!JS_IsException(arguments[1]))
        made = JS_Call(js, sdk.tagged, JS_UNDEFINED, 2, arguments);
    JS_FreeValue(js, arguments[0]);
    JS_FreeValue(js, arguments[1]);
    return made;
}

static JSValue simple(const Head *head)
{
    union {
        uint32_t bits;
        float number;
    } single = {(uint32_t)head->number};
    union {
        uint64_t bits;
        double number;
    } whole = {head->number};
    switch (head->info) {
    case 20:
    case 21:
        return JS_NewBool(js, head->info == 21);
    case 22:
    case 23:
        /* Null, and undefined. */
        return JS_NULL;
    case 25:
        return JS_NewNumber(js, read_half(head->number));
    case 26:
        return JS_NewNumber(js, single.number);
    case 27:
        return JS_NewNumber(js, whole.number);
    default:
        return refuse("a simple value that JavaScript does not have");
    }
}

static JSValue read_value(int depth)
{
    Head head;
    if (depth > DEPTH)
        return refuse("nested too deeply");
    if (!read_head(&head))
        return JS_EXCEPTION;
    switch (head.major) {
    case BYTE_STRING:
    case TEXT:
        return string(&head);
    case ARRAY:
        return list(&head, depth);
    case PAIRS:
        return pairs(&head, depth);
    }
    if (head.info == OPEN)
        return invalid();
    switch (head.major) {
    case TAG:
        return tag(head.number, depth);
    case SIMPLE:
        return simple(&head);
    default:
        return read_integer(head.number, head.major == NEGATIVE);
    }
}

JSValue read_item(const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return refuse("there is no data");
    at = bytes;
    end = bytes + length;
    JSValue item = read_value(0);
    if (JS_IsException(item) || at == end)
        return item;
    JS_FreeValue(js, item);
    return refuse("bytes follow it");
}
