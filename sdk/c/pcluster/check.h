/* Checks bytes that are to be one CBOR item. Part of pcluster.h. */
#ifndef PCLUSTER_CHECK_H
#define PCLUSTER_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The most lists, maps and tags that may be open at once. */
#define PCLUSTER_DEPTH 128

/* What the first byte of a value says, and its argument. */
typedef struct pcluster_head {
    unsigned major, info;
    uint64_t argument;
    /* The bytes of the head. 0 if the data ends in it, or no value begins so. */
    size_t size;
} pcluster_head;

static inline pcluster_head pcluster_read_head(const uint8_t *bytes, size_t size)
{
    pcluster_head head = {0, 0, 0, 0};
    if (size == 0)
        return head;
    head.major = bytes[0] >> 5;
    head.info = bytes[0] & 31;
    size_t more = head.info < 24 || head.info == 31 ? 0 : head.info < 28 ? (size_t)1 << (head.info - 24) : size;
    if (more >= size)
        return head;
    head.argument = head.info < 24 ? head.info : 0;
    for (size_t at = 1; at <= more; at++)
        head.argument = head.argument << 8 | bytes[at];
    head.size = 1 + more;
    return head;
}

/* Writes a head of at most 9 bytes. Returns their number. */
static inline size_t pcluster_write_head(uint8_t *to, unsigned major, uint64_t argument)
{
    unsigned width = argument < 24 ? 0 : argument <= 0xff ? 1 : argument <= 0xffff ? 2 : argument <= 0xffffffff ? 4 : 8;
    unsigned info = width == 0 ? (unsigned)argument : width == 1 ? 24 : width == 2 ? 25 : width == 4 ? 26 : 27;
    to[0] = (uint8_t)(major << 5 | info);
    for (unsigned at = 0; at < width; at++)
        to[1 + at] = (uint8_t)(argument >> (8 * (width - 1 - at)));
    return 1 + width;
}

/* Returns true if the bytes are UTF-8, without surrogates and overlong forms. */
static inline bool pcluster_is_utf8(const uint8_t *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint8_t first = text[at++];
        if (first < 0x80)
            continue;
        unsigned more = first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
        if (first < 0xc2 || first > 0xf4 || size - at < more)
            return false;
        uint8_t low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
        uint8_t high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
        if (text[at] < low || text[at] > high)
            return false;
        for (at++; more > 1; more--, at++)
            if ((text[at] & 0xc0) != 0x80)
                return false;
    }
    return true;
}

/* A list, map or tag that is not complete. */
typedef struct pcluster_open {
    uint64_t left;
    bool until_break, is_map, odd;
} pcluster_open;

/* Joins a string in pieces, which begins at bytes[*in], into one at bytes[*out]. Returns what is wrong with it, or NULL. */
static inline const char *pcluster_join(uint8_t *bytes, size_t size, size_t *in, size_t *out)
{
    unsigned major = bytes[*in] >> 5;
    /* The pieces are put together where the first begins, and then moved to where the whole belongs. */
    size_t at = *in + 1, start = 0, end = 0;
    for (;;) {
        pcluster_head piece = pcluster_read_head(bytes + at, size - at);
        if (piece.size == 0)
            return "the data ends too early";
        at += piece.size;
        if (piece.major == 7 && piece.info == 31)
            break;
        if (piece.major != major || piece.info == 31)
            return "a piece of a string is none";
        if (piece.argument > size - at)
            return "the data ends too early";
        if (major == 3 && !pcluster_is_utf8(bytes + at, (size_t)piece.argument))
            return "a text is not UTF-8";
        if (end == 0)
            start = end = at;
        memmove(bytes + end, bytes + at, (size_t)piece.argument);
        end += (size_t)piece.argument;
        at += (size_t)piece.argument;
    }
    /* The one head is never longer than those of the pieces together. */
    uint8_t head[9];
    size_t head_size = pcluster_write_head(head, major, end - start);
    memmove(bytes + *out + head_size, bytes + start, end - start);
    memcpy(bytes + *out, head, head_size);
    *in = at;
    *out += head_size + (end - start);
    return NULL;
}

/*
 * Checks that bytes are one CBOR item: complete, at most PCLUSTER_DEPTH deep, each text UTF-8, no unknown simple value. Joins strings that come in
 * pieces, in place, and shortens *size by what that saves. Returns what is wrong, or NULL.
 */
static inline const char *pcluster_check(uint8_t *bytes, size_t *size)
{
    pcluster_open open[PCLUSTER_DEPTH];
    unsigned depth = 0;
    size_t in = 0, out = 0;
    bool is_large = false;
    /* A tag that says that the item is CBOR says nothing else. */
    if (*size >= 3 && bytes[0] == 0xd9 && bytes[1] == 0xd9 && bytes[2] == 0xf7)
        in = 3;
    for (bool first = true; first || depth > 0; first = false) {
        pcluster_head head = pcluster_read_head(bytes + in, *size - in);
        if (head.size == 0)
            return in < *size && head.info >= 28 && head.info < 31 ? "no value begins like this" : "the data ends too early";
        bool is_string = head.major == 2 || head.major == 3, opens = head.major >= 4 && head.major <= 6;
        if (head.info == 31 && (head.major < 2 || head.major == 6))
            return "no value begins like this";
        if (head.major == 7 && head.info == 24 && head.argument < 32)
            return "no value begins like this";
        if (head.major == 7 && (head.info < 20 || head.info == 24))
            return "there is no such simple value";
        if (is_large && head.major != 2)
            return "a large number is not bytes";
        is_large = head.major == 6 && (head.argument == 2 || head.argument == 3);
        if (is_string && head.info == 31) {
            const char *wrong = pcluster_join(bytes, *size, &in, &out);
            if (wrong)
                return wrong;
        } else {
            size_t whole = head.size;
            if (is_string) {
                if (head.argument > *size - in - head.size)
                    return "the data ends too early";
                if (head.major == 3 && !pcluster_is_utf8(bytes + in + head.size, (size_t)head.argument))
                    return "a text is not UTF-8";
                whole += (size_t)head.argument;
            }
            if (out < in)
                memmove(bytes + out, bytes + in, whole);
            in += whole;
            out += whole;
        }
        if (head.major == 7 && head.info == 31) {
            if (depth == 0 || !open[depth - 1].until_break || open[depth - 1].odd)
                return "a break ends nothing";
            depth--;
        } else if (opens) {
            if (depth == PCLUSTER_DEPTH)
                return "nested too deeply";
            if (head.major == 5 && head.argument > UINT64_MAX / 2)
                return "the data ends too early";
            pcluster_open entry = {head.major == 6 ? 1 : head.major == 5 ? 2 * head.argument : head.argument, head.info == 31,
                                   head.major == 5, false};
            open[depth++] = entry;
            if (entry.until_break || entry.left > 0)
                continue;
            depth--;
        }
        /* A value is complete, and with it perhaps those that it stands in. */
        while (depth > 0) {
            pcluster_open *entry = &open[depth - 1];
            if (entry->until_break) {
                entry->odd = entry->is_map && !entry->odd;
                break;
            }
            if (--entry->left > 0)
                break;
            depth--;
        }
    }
    if (in < *size)
        return "more bytes follow it";
    *size = out;
    return NULL;
}

#endif
