/* Numbers of CBOR in JavaScript. */
#include <math.h>

#include "engine.h"

/* The largest integer that a number holds for sure. */
#define SAFE 0x1fffffffffffffULL

/* Returns the integer with these bytes, or -1 minus it. */
JSValue read_large_integer(const uint8_t *bytes, size_t length, bool is_negative)
{
    static const char DIGITS[] = "0123456789abcdef";
    char *text = js_malloc(js, 2 * length + 4), *to = text;
    if (!text)
        return JS_EXCEPTION;
    *to++ = '0';
    *to++ = 'x';
    *to++ = '0';
    for (size_t index = 0; index < length; index++) {
        *to++ = DIGITS[bytes[index] >> 4];
        *to++ = DIGITS[bytes[index] & 15];
    }
    JSValue arguments[2] = {JS_NewStringLen(js, text, to - text), JS_NewBool(js, is_negative)};
    js_free(js, text);
    JSValue made = JS_Call(js, sdk.bigint, JS_UNDEFINED, 2, arguments);
    JS_FreeValue(js, arguments[0]);
    return made;
}

JSValue read_integer(uint64_t number, bool is_negative)
{
    if (number <= SAFE - is_negative)
        return is_negative ? JS_NewInt64(js, -1 - (int64_t)number) : JS_NewInt64(js, (int64_t)number);
    if (!is_negative)
        return JS_NewBigUint64(js, number);
    if (number <= INT64_MAX)
        return JS_NewBigInt64(js, -1 - (int64_t)number);
    uint8_t bytes[8];
    for (int index = 0; index < 8; index++)
        bytes[index] = number >> (56 - 8 * index);
    return read_large_integer(bytes, sizeof bytes, true);
}

/* Returns the value of a float of 16 bits. */
double read_half(uint16_t bits)
{
    int exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    double value = exponent == 0    ? ldexp(fraction, -24)
                   : exponent != 31 ? ldexp(1024 + fraction, exponent - 25)
                   : fraction == 0  ? INFINITY
                                    : NAN;
    return bits >> 15 ? -value : value;
}
