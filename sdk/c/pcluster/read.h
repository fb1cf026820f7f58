/*
 * Reads items. Part of pcluster.h.
 *
 * A reader is a place in an item, and owns nothing: the texts and bytes it returns lie in the item, which lasts until the task
 * returns. If a value is not of the type that is asked for, a reading function returns 0, or an empty text, and the item fails
 * for good once its task returns PCLUSTER_DONE. So a task needs to check nothing.
 */
#ifndef PCLUSTER_READ_H
#define PCLUSTER_READ_H

#include <stdio.h>

#include "check.h"

/* What is wrong with an item or an output. The first fault counts. */
typedef struct pcluster_fault {
    char text[160];
} pcluster_fault;

/* A place in an item. */
typedef struct pcluster_reader {
    const uint8_t *at, *end;
    /* The name of the field that it begins with, for messages. NULL if it has none. */
    const char *name;
    /* NULL: faults are not told. */
    pcluster_fault *fault;
} pcluster_reader;

/* A text or bytes in an item. It does not end with a NUL. */
typedef struct pcluster_span {
    const char *start;
    size_t length;
} pcluster_span;

/* The two arguments of `%.*s` in a format. */
#define PCLUSTER_SPAN(span) (int)(span).length, (span).start

/* The type of a value. */
typedef enum pcluster_kind {
    PCLUSTER_UNSIGNED,
    PCLUSTER_NEGATIVE,
    PCLUSTER_BYTES,
    PCLUSTER_TEXT,
    PCLUSTER_LIST,
    PCLUSTER_MAP,
    PCLUSTER_TAG,
    PCLUSTER_BOOL,
    /* Null, or what JavaScript calls undefined. */
    PCLUSTER_NULL,
    PCLUSTER_FLOAT,
    /* There is no value: a field is missing, or a list has ended. */
    PCLUSTER_NOTHING
} pcluster_kind;

/* The values of a list that are to come, or the entries of a map. */
typedef struct pcluster_entries {
    uint64_t left;
    bool until_break;
} pcluster_entries;

/* Returns the type of the next value. */
static inline pcluster_kind pcluster_kind_of(const pcluster_reader *reader)
{
    if (reader->at == reader->end || *reader->at == 0xff)
        return PCLUSTER_NOTHING;
    unsigned info = *reader->at & 31;
    if (*reader->at >> 5 < 7)
        return (pcluster_kind)(*reader->at >> 5);
    return info < 22 ? PCLUSTER_BOOL : info < 24 ? PCLUSTER_NULL : PCLUSTER_FLOAT;
}

/* Tells that a value is not what the task needs. `says` follows its name, as in "is not a text". */
static inline void pcluster_misfit(pcluster_reader *reader, const char *says)
{
    if (!reader->fault || reader->fault->text[0])
        return;
    if (pcluster_kind_of(reader) == PCLUSTER_NOTHING)
        says = "is missing";
    if (reader->name)
        snprintf(reader->fault->text, sizeof reader->fault->text, "`%s` %s", reader->name, says);
    else
        snprintf(reader->fault->text, sizeof reader->fault->text, "a value %s", says);
}

/* Takes the head of the next value if it is of a type, and tells otherwise. Its size is 0 then, and nothing is taken. */
static inline pcluster_head pcluster_take(pcluster_reader *reader, pcluster_kind kind, const char *says)
{
    pcluster_head none = {0, 0, 0, 0};
    if (pcluster_kind_of(reader) != kind) {
        pcluster_misfit(reader, says);
        return none;
    }
    pcluster_head head = pcluster_read_head(reader->at, (size_t)(reader->end - reader->at));
    reader->at += head.size;
    return head;
}

/* Reads a number from 0 to 2^64-1. */
static inline uint64_t pcluster_read_unsigned(pcluster_reader *reader)
{
    return pcluster_take(reader, PCLUSTER_UNSIGNED, "is not a whole number from 0 to 2^64-1").argument;
}

/* Reads a number from -2^63 to 2^63-1. */
static inline int64_t pcluster_read_integer(pcluster_reader *reader)
{
    static const char says[] = "is not a whole number from -2^63 to 2^63-1";
    pcluster_reader before = *reader;
    bool negative = pcluster_kind_of(reader) == PCLUSTER_NEGATIVE;
    uint64_t argument = pcluster_take(reader, negative ? PCLUSTER_NEGATIVE : PCLUSTER_UNSIGNED, says).argument;
    if (argument > INT64_MAX) {
        pcluster_misfit(&before, says);
        return 0;
    }
    return negative ? -1 - (int64_t)argument : (int64_t)argument;
}

/* Reads a negative number from -2^64 to -1. Returns n for -1-n. */
static inline uint64_t pcluster_read_negative(pcluster_reader *reader)
{
    return pcluster_take(reader, PCLUSTER_NEGATIVE, "is not a whole number from -2^64 to -1").argument;
}

static inline double pcluster_half(uint64_t bits)
{
    uint64_t exponent = bits >> 10 & 31, fraction = bits & 1023;
    double value = (double)fraction;
    if (exponent == 31) {
        uint64_t special = UINT64_C(0x7ff) << 52 | fraction << 42;
        memcpy(&value, &special, sizeof value);
    } else {
        int power = exponent ? (int)exponent - 25 : -24;
        value += exponent ? 1024 : 0;
        for (; power < 0; power++)
            value /= 2;
        for (; power > 0; power--)
            value *= 2;
    }
    return bits >> 15 ? -value : value;
}

/* Reads a number: a float of any size, or a whole number that a double holds exactly. */
static inline double pcluster_read_float(pcluster_reader *reader)
{
    pcluster_kind kind = pcluster_kind_of(reader);
    if (kind == PCLUSTER_UNSIGNED || kind == PCLUSTER_NEGATIVE) {
        pcluster_reader before = *reader;
        uint64_t argument = pcluster_take(reader, kind, "").argument;
        /* The magnitude of a negative number is one more. */
        uint64_t magnitude = argument + (kind == PCLUSTER_NEGATIVE);
        double value = (double)magnitude;
        if (kind == PCLUSTER_NEGATIVE && magnitude == 0)
            value = 18446744073709551616.0;
        else if (value >= 18446744073709551616.0 || (uint64_t)value != magnitude)
            pcluster_misfit(&before, "is a whole number that no double holds exactly");
        return kind == PCLUSTER_NEGATIVE ? -value : value;
    }
    pcluster_head head = pcluster_take(reader, PCLUSTER_FLOAT, "is not a number");
    double value = 0;
    if (head.info == 25)
        return pcluster_half(head.argument);
    if (head.info == 26) {
        float narrow;
        uint32_t bits = (uint32_t)head.argument;
        memcpy(&narrow, &bits, sizeof narrow);
        return narrow;
    }
    memcpy(&value, &head.argument, sizeof value);
    return value;
}

/* Reads true or false. */
static inline bool pcluster_read_bool(pcluster_reader *reader)
{
    return pcluster_take(reader, PCLUSTER_BOOL, "is neither true nor false").info == 21;
}

static inline pcluster_span pcluster_read_string(pcluster_reader *reader, pcluster_kind kind, const char *says)
{
    pcluster_span span = {"", (size_t)pcluster_take(reader, kind, says).argument};
    if (span.length > 0)
        span.start = (const char *)reader->at;
    reader->at += span.length;
    return span;
}

/* Reads a text, in UTF-8. */
static inline pcluster_span pcluster_read_text(pcluster_reader *reader)
{
    return pcluster_read_string(reader, PCLUSTER_TEXT, "is not a text");
}

/* Reads bytes. */
static inline pcluster_span pcluster_read_bytes(pcluster_reader *reader)
{
    return pcluster_read_string(reader, PCLUSTER_BYTES, "is not bytes");
}

/* Reads the number of a tag. The tagged value follows. */
static inline uint64_t pcluster_read_tag(pcluster_reader *reader)
{
    return pcluster_take(reader, PCLUSTER_TAG, "is not tagged").argument;
}

static inline pcluster_entries pcluster_enter(pcluster_reader *reader, pcluster_kind kind, const char *says)
{
    pcluster_head head = pcluster_take(reader, kind, says);
    pcluster_entries entries = {head.argument, head.info == 31};
    return entries;
}

/* Begins a list. Its values follow: `while (pcluster_next(&reader, &list))` read one. */
static inline pcluster_entries pcluster_read_list(pcluster_reader *reader)
{
    return pcluster_enter(reader, PCLUSTER_LIST, "is not a list");
}

/* Begins a map. Its entries follow: `while (pcluster_next(&reader, &map))` read a key and a value. */
static inline pcluster_entries pcluster_read_map(pcluster_reader *reader)
{
    return pcluster_enter(reader, PCLUSTER_MAP, "is not a map");
}

/* Returns true if another value of a list or entry of a map follows. */
static inline bool pcluster_next(pcluster_reader *reader, pcluster_entries *entries)
{
    if (!entries->until_break)
        return entries->left > 0 && reader->at < reader->end ? entries->left--, true : false;
    entries->until_break = reader->at < reader->end && *reader->at != 0xff;
    if (!entries->until_break && reader->at < reader->end)
        reader->at++;
    return entries->until_break;
}

/* Passes over the next value, with all that is in it. */
static inline void pcluster_skip(pcluster_reader *reader)
{
    pcluster_head head = pcluster_read_head(reader->at, (size_t)(reader->end - reader->at));
    pcluster_entries entries = {head.argument, head.info == 31};
    reader->at += head.size;
    switch (head.major) {
    case 2:
    case 3:
        reader->at += (size_t)head.argument;
        break;
    case 5:
    case 4:
        while (pcluster_next(reader, &entries))
            for (unsigned values = head.major - 3; values > 0; values--)
                pcluster_skip(reader);
        break;
    case 6:
        pcluster_skip(reader);
        break;
    default:
        break;
    }
}

/* Returns true if two texts are equal. */
static inline bool pcluster_equal(pcluster_span one, pcluster_span other)
{
    return one.length == other.length && memcmp(one.start, other.start, one.length) == 0;
}

/* Returns true if a text is this one. */
static inline bool pcluster_is(pcluster_span span, const char *text)
{
    pcluster_span other = {text, strlen(text)};
    return pcluster_equal(span, other);
}

/* Returns a reader of the value of a key, and takes nothing. It has nothing if the key is missing. Of equal keys, the last counts. */
static inline pcluster_reader pcluster_field_of(const pcluster_reader *map, pcluster_span key)
{
    pcluster_reader rest = *map, found = {map->end, map->end, NULL, map->fault};
    for (pcluster_entries entries = pcluster_read_map(&rest); pcluster_next(&rest, &entries); pcluster_skip(&rest)) {
        pcluster_reader name = rest;
        bool is_text = pcluster_kind_of(&rest) == PCLUSTER_TEXT;
        pcluster_skip(&rest);
        if (is_text && pcluster_equal(pcluster_read_text(&name), key))
            found.at = rest.at;
    }
    return found;
}

/* Returns a reader of the value of a key, as pcluster_field_of does. Faults of the value name the key. */
static inline pcluster_reader pcluster_field(const pcluster_reader *map, const char *key)
{
    pcluster_span name = {key, strlen(key)};
    pcluster_reader found = pcluster_field_of(map, name);
    found.name = key;
    return found;
}

/* Returns true if a map has a key whose value is not null. */
static inline bool pcluster_has(const pcluster_reader *map, const char *key)
{
    pcluster_reader field = pcluster_field(map, key);
    pcluster_kind kind = pcluster_kind_of(&field);
    return kind != PCLUSTER_NOTHING && kind != PCLUSTER_NULL;
}

/* Returns the text of a key. */
static inline pcluster_span pcluster_field_text(const pcluster_reader *map, const char *key)
{
    pcluster_reader field = pcluster_field(map, key);
    return pcluster_read_text(&field);
}

/* Returns the whole number of a key. */
static inline int64_t pcluster_field_integer(const pcluster_reader *map, const char *key)
{
    pcluster_reader field = pcluster_field(map, key);
    return pcluster_read_integer(&field);
}

/* Returns the number of a key. */
static inline double pcluster_field_float(const pcluster_reader *map, const char *key)
{
    pcluster_reader field = pcluster_field(map, key);
    return pcluster_read_float(&field);
}

/* Returns the bool of a key. */
static inline bool pcluster_field_bool(const pcluster_reader *map, const char *key)
{
    pcluster_reader field = pcluster_field(map, key);
    return pcluster_read_bool(&field);
}

#endif
