/* From JavaScript to CBOR. */
#include <math.h>
#include <stdlib.h>

#include "engine.h"

enum { UNSIGNED, NEGATIVE, BYTE_STRING, TEXT, ARRAY, PAIRS, TAG };

uint8_t *written;
size_t written_length;
static size_t room;

static bool write_value(JSValueConst value, int depth);

static bool refuse(const char *why)
{
    JS_ThrowTypeError(js, "%s", why);
    return false;
}

/* Makes room for more bytes. Returns where they go. NULL if there is no memory for them. */
static uint8_t *extend(size_t more)
{
    if (room - written_length < more) {
        size_t wanted = written_length + more;
        wanted = wanted > 2 * room ? wanted : 2 * room;
        uint8_t *grown = realloc(written, wanted);
        if (!grown) {
            JS_ThrowOutOfMemory(js);
            return NULL;
        }
        written = grown;
        room = wanted;
    }
    written_length += more;
    return written + written_length - more;
}

static bool put_head(int major, uint64_t number)
{
    int size = number < 24 ? 0 : number <= 0xff ? 1 : number <= 0xffff ? 2 : number <= 0xffffffff ? 4 : 8;
    uint8_t *to = extend(1 + size);
    if (!to)
        return false;
    *to++ = major << 5 | (size == 0 ? (int)number : 23 + (size == 1 ? 1 : size == 2 ? 2 : size == 4 ? 3 : 4));
    while (size-- > 0)
        *to++ = number >> (8 * size);
    return true;
}

static bool put_string(int major, const void *bytes, size_t length)
{
    if (!put_head(major, length))
        return false;
    uint8_t *to = extend(length);
    if (to)
        memcpy(to, bytes, length);
    return to != NULL;
}

static bool put_byte(uint8_t byte)
{
    uint8_t *to = extend(1);
    if (to)
        *to = byte;
    return to != NULL;
}

static bool put_float(double number)
{
    union {
        double number;
        uint64_t bits;
    } whole = {number};
    uint64_t bits = isnan(number) ? 0x7ff8000000000000 : whole.bits;
    uint8_t *to = extend(9);
    if (!to)
        return false;
    *to++ = 0xfb;
    for (int shift = 56; shift >= 0; shift -= 8)
        *to++ = bits >> shift;
    return true;
}

static bool put_integer(int64_t number)
{
    return number < 0 ? put_head(NEGATIVE, ~(uint64_t)number) : put_head(UNSIGNED, number);
}

static bool put_number(double number)
{
    /* The integers that a number holds for sure. What is larger is an integer only as a BigInt. */
    if (number >= -9007199254740991.0 && number <= 9007199254740991.0 && number == trunc(number) && (number != 0 || !signbit(number)))
        return put_integer((int64_t)number);
    return put_float(number);
}

/* Returns the text of a value. NULL if it has a lone surrogate, or if there is none. */
static const char *text_of(JSValueConst value, size_t *length)
{
    const char *text = JS_ToCStringLen(js, length, value);
    if (text && !text_is_valid((const uint8_t *)text, *length)) {
        JS_FreeCString(js, text);
        refuse("a text with half of a surrogate pair");
        return NULL;
    }
    return text;
}

/* Writes a text of ASCII. Returns false if it is none. */
static bool put_ascii(JSValueConst value)
{
    size_t length;
    const uint8_t *text = inside_latin1(value, &length);
    uint8_t high = 0;
    if (!text)
        return false;
    for (size_t index = 0; index < length; index++)
        high |= text[index];
    return high < 0x80 && put_string(TEXT, text, length);
}

static bool put_text(JSValueConst value)
{
    size_t length;
    if (put_ascii(value))
        return true;
    if (JS_HasException(js))
        return false;
    const char *text = text_of(value, &length);
    bool is_put = text && put_string(TEXT, text, length);
    JS_FreeCString(js, text);
    return is_put;
}

/* Writes an integer of any size: by its digits in base 16, as `toString` gives them. */
static bool put_bigint(JSValueConst value)
{
    JSValue base = JS_NewInt32(js, 16), digits = JS_EXCEPTION;
    JSAtom name = JS_NewAtom(js, "toString");
    JSValue object = JS_ToObject(js, value);
    digits = JS_Invoke(js, object, name, 1, &base);
    JS_FreeValue(js, object);
    JS_FreeAtom(js, name);
    size_t length;
    const char *text = JS_IsException(digits) ? NULL : JS_ToCStringLen(js, &length, digits);
    JS_FreeValue(js, digits);
    if (!text)
        return false;
    bool is_negative = text[0] == '-', is_put = false;
    size_t start = is_negative, size = (length - start + 1) / 2;
    uint8_t *bytes = js_mallocz(js, size);
    if (bytes) {
        for (size_t index = length, place = 0; index > start; index--, place++) {
            char digit = text[index - 1];
            bytes[size - 1 - place / 2] |= (digit <= '9' ? digit - '0' : digit - 'a' + 10) << (place % 2 * 4);
        }
        /* A negative integer is written as what is missing to -1. */
        for (size_t index = size; is_negative && index > 0 && bytes[index - 1]-- == 0; index--)
            ;
        const uint8_t *first = bytes, *last = bytes + size;
        while (first < last && !*first)
            first++;
        if (last - first <= 8) {
            uint64_t number = 0;
            for (; first < last; first++)
                number = number << 8 | *first;
            is_put = put_head(is_negative ? NEGATIVE : UNSIGNED, number);
        } else {
            is_put = put_head(TAG, is_negative ? 3 : 2) && put_string(BYTE_STRING, first, last - first);
        }
        js_free(js, bytes);
    }
    JS_FreeCString(js, text);
    return is_put;
}

static bool put_list(JSValueConst list, int depth)
{
    int64_t length;
    if (JS_GetLength(js, list, &length) < 0 || !put_head(ARRAY, length))
        return false;
    for (int64_t index = 0; index < length; index++) {
        JSValue value = JS_GetPropertyInt64(js, list, index);
        /* As JSON has it. */
        bool is_put = JS_IsUndefined(value) ? put_byte(0xf6) : write_value(value, depth + 1);
        JS_FreeValue(js, value);
        if (!is_put)
            return false;
    }
    return true;
}

static bool put_property(JSAtom name, JSValueConst value, int depth)
{
    JSValue text = JS_AtomToString(js, name);
    bool is_put = put_text(text) && write_value(value, depth + 1);
    JS_FreeValue(js, text);
    return is_put;
}

static bool put_properties(JSPropertyEnum *names, JSValue *values, uint32_t count, int depth)
{
    uint32_t defined = 0;
    for (uint32_t index = 0; index < count; index++)
        defined += !JS_IsUndefined(values[index]);
    if (!put_head(PAIRS, defined))
        return false;
    for (uint32_t index = 0; index < count; index++) {
        /* As JSON has it. */
        if (JS_IsUndefined(values[index]))
            continue;
        if (!put_property(names[index].atom, values[index], depth))
            return false;
    }
    return true;
}

/* Writes an object whose properties are values. Sets `*is_done` to false if it is another one. */
static bool put_plain(JSValueConst object, int depth, bool *is_done)
{
    enum { MOST = 24 };
    JSAtom names[MOST];
    JSValue values[MOST];
    int count = inside_properties(object, names, values, MOST);
    *is_done = count >= 0;
    if (count < 0)
        return false;
    bool is_put = put_head(PAIRS, count);
    for (int index = 0; index < count; index++) {
        is_put = is_put && put_property(names[index], values[index], depth);
        JS_FreeValue(js, values[index]);
        JS_FreeAtom(js, names[index]);
    }
    return is_put;
}

static bool put_object(JSValueConst object, int depth)
{
    enum { FEW = 8 };
    bool is_done, is_written = put_plain(object, depth, &is_done);
    if (is_done)
        return is_written;
    JSPropertyEnum *names;
    uint32_t count, got = 0;
    if (JS_GetOwnPropertyNames(js, &names, &count, object, JS_GPN_STRING_MASK | JS_GPN_ENUM_ONLY) < 0)
        return false;
    JSValue few[FEW], *values = count <= FEW ? few : js_malloc(js, count * sizeof *values);
    bool is_put = false;
    if (values) {
        while (got < count && !JS_IsException(values[got] = JS_GetProperty(js, object, names[got].atom)))
            got++;
        is_put = got == count && put_properties(names, values, count, depth);
        for (uint32_t index = 0; index < got; index++)
            JS_FreeValue(js, values[index]);
        if (values != few)
            js_free(js, values);
    }
    JS_FreePropertyEnum(js, names, count);
    return is_put;
}

/* Writes the keys and values of a list of pairs. */
static bool put_pairs(JSValueConst pairs, int depth)
{
    int64_t count;
    if (JS_GetLength(js, pairs, &count) < 0 || !put_head(PAIRS, count))
        return false;
    for (int64_t index = 0; index < count; index++) {
        JSValue pair = JS_GetPropertyInt64(js, pairs, index);
        JSValue key = JS_GetPropertyUint32(js, pair, 0), value = JS_GetPropertyUint32(js, pair, 1);
        bool is_put = write_value(key, depth + 1);
        is_put = is_put && (JS_IsUndefined(value) ? put_byte(0xf6) : write_value(value, depth + 1));
        JS_FreeValue(js, value);
        JS_FreeValue(js, key);
        JS_FreeValue(js, pair);
        if (!is_put)
            return false;
    }
    return true;
}

static bool put_tag(JSValueConst tag, int depth)
{
    JSValue number = JS_GetPropertyStr(js, tag, "tag"), value = JS_GetPropertyStr(js, tag, "value");
    size_t start = written_length;
    bool is_put = write_value(number, depth);
    if (is_put && written[start] >> 5 != UNSIGNED)
        is_put = refuse("the number of a tag must be an integer from 0 to 2^64 - 1");
    if (is_put) {
        written[start] |= TAG << 5;
        is_put = write_value(value, depth + 1);
    }
    JS_FreeValue(js, number);
    JS_FreeValue(js, value);
    return is_put;
}

/* Writes what stands for an object: `{pairs}`, or a value. */
static bool put_stand_in(JSValueConst object, Kind kind, int depth)
{
    JSValue stands = JS_Call(js, sdk.stand_in, JS_UNDEFINED, 1, &object);
    if (JS_IsException(stands))
        return false;
    bool is_same = JS_IsObject(stands) && JS_VALUE_GET_PTR(stands) == JS_VALUE_GET_PTR(object);
    bool is_put = kind == MAP ? put_pairs(stands, depth) : is_same ? put_object(object, depth) : write_value(stands, depth + 1);
    JS_FreeValue(js, stands);
    return is_put;
}

static bool put_bytes(JSValueConst object, Kind kind)
{
    size_t length;
    const uint8_t *bytes = kind == BYTES ? JS_GetUint8Array(js, &length, object) : JS_GetArrayBuffer(js, &length, object);
    if (!bytes && JS_HasException(js))
        return false;
    return put_string(BYTE_STRING, bytes ? bytes : (const uint8_t *)"", bytes ? length : 0);
}

static bool write_object(JSValueConst object, int depth)
{
    Kind kind = inside_kind(object);
    switch (kind) {
    case LIST:
        return put_list(object, depth);
    case BYTES:
    case BUFFER:
        return put_bytes(object, kind);
    case PLAIN:
        if (inside_is_ordinary(js, object))
            return put_object(object, depth);
        if (inside_has_prototype(object, sdk.tag))
            return put_tag(object, depth);
        return put_stand_in(object, kind, depth);
    default:
        return put_stand_in(object, kind, depth);
    }
}

static bool write_value(JSValueConst value, int depth)
{
    if (depth > DEPTH)
        return refuse("nested too deeply");
    switch (JS_VALUE_GET_NORM_TAG(value)) {
    case JS_TAG_STRING:
    case JS_TAG_STRING_ROPE:
        return put_text(value);
    case JS_TAG_INT:
        return put_integer(JS_VALUE_GET_INT(value));
    case JS_TAG_FLOAT64:
        return put_number(JS_VALUE_GET_FLOAT64(value));
    case JS_TAG_BOOL:
        return put_byte(JS_VALUE_GET_BOOL(value) ? 0xf5 : 0xf4);
    case JS_TAG_NULL:
        return put_byte(0xf6);
    case JS_TAG_BIG_INT:
    case JS_TAG_SHORT_BIG_INT:
        return put_bigint(value);
    case JS_TAG_OBJECT:
        return write_object(value, depth);
    case JS_TAG_UNDEFINED:
        return refuse("undefined is no value; null is one");
    default:
        return refuse("a symbol has no form");
    }
}

bool write_item(JSValueConst value)
{
    written_length = 0;
    return write_value(value, 0);
}
