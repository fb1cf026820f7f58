/* UTF-8. */
#include <stdlib.h>

#include "engine.h"

/* Returns how many bytes the valid character at a place has. 0 if there is none. */
static size_t character(const uint8_t *at, size_t left)
{
    uint8_t first = at[0];
    if (first < 0x80)
        return 1;
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || left < size)
        return 0;
    for (size_t index = 1; index < size; index++)
        if ((at[index] & 0xc0) != 0x80)
            return 0;
    /* Too long a form, a surrogate, and what is beyond Unicode. */
    if ((first == 0xe0 && at[1] < 0xa0) || (first == 0xed && at[1] > 0x9f) || (first == 0xf0 && at[1] < 0x90) ||
        (first == 0xf4 && at[1] > 0x8f))
        return 0;
    return size;
}

bool text_is_valid(const uint8_t *bytes, size_t length)
{
    for (size_t index = 0; index < length;) {
        size_t size = character(bytes + index, length - index);
        if (size == 0)
            return false;
        index += size;
    }
    return true;
}

/* `encode(text)`: its UTF-8, where half of a surrogate pair is U+FFFD. */
JSValue text_encode(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    size_t length;
    const char *text = JS_ToCStringLen(context, &length, arguments[0]);
    if (!text)
        return JS_EXCEPTION;
    JSValue bytes = JS_NewUint8ArrayCopy(context, (const uint8_t *)text, length);
    JS_FreeCString(context, text);
    uint8_t *at = JS_GetUint8Array(context, &length, bytes);
    for (size_t index = 0; index + 2 < length; index++)
        /* A surrogate has three bytes, as U+FFFD has. */
        if (at[index] == 0xed && at[index + 1] >= 0xa0) {
            at[index] = 0xef;
            at[index + 1] = 0xbf;
            at[index + 2] = 0xbd;
        }
    return bytes;
}

/* Returns how many bytes of a broken character become one U+FFFD. */
static size_t broken(const uint8_t *at, size_t left)
{
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    if (first < 0xc2 || first > 0xf4)
        return 1;
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2, good = 1;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    while (good < size && good < left && at[good] >= low && at[good] <= high) {
        good++;
        low = 0x80;
        high = 0xbf;
    }
    return good;
}

/* `decode(bytes, is_fatal)`: the text of UTF-8, or `undefined` if it is none and `is_fatal`. */
JSValue text_decode(JSContext *context, JSValueConst self, int count, JSValueConst *arguments)
{
    (void)self, (void)count;
    size_t length, used = 0;
    const uint8_t *bytes = JS_GetUint8Array(context, &length, arguments[0]);
    if (!bytes)
        return JS_HasException(context) ? JS_EXCEPTION : JS_NewStringLen(context, "", 0);
    if (text_is_valid(bytes, length))
        return JS_NewStringLen(context, (const char *)bytes, length);
    if (JS_ToBool(context, arguments[1]))
        return JS_UNDEFINED;
    char *text = js_malloc(context, 3 * length);
    if (!text)
        return JS_EXCEPTION;
    for (size_t index = 0; index < length;) {
        size_t size = character(bytes + index, length - index);
        memcpy(text + used, size ? (const char *)bytes + index : "\xef\xbf\xbd", size ? size : 3);
        used += size ? size : 3;
        index += size ? size : broken(bytes + index, length - index);
    }
    JSValue decoded = JS_NewStringLen(context, text, used);
    js_free(context, text);
    return decoded;
}
