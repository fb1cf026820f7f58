/*
 * Writes items. Part of pcluster.h.
 *
 * A writer begins as PCLUSTER_WRITER. Small items stay in it; for larger ones it takes memory from the heap, which pcluster_emit
 * and pcluster_clear return. What is written is copied: a text may go once it is written.
 */
#ifndef PCLUSTER_WRITE_H
#define PCLUSTER_WRITE_H

#include <stdlib.h>

#include "read.h"

typedef struct pcluster_writer {
    /* The memory from the heap. NULL as long as the item is in `small`. */
    uint8_t *heap;
    size_t length, room;
    uint8_t small[256];
} pcluster_writer;

/* An empty writer. */
#define PCLUSTER_WRITER {NULL, 0, 0, {0}}

/* The length of a list or map that pcluster_put_end ends. */
#define PCLUSTER_UNTIL_END UINT64_MAX

/* Returns what is written. */
static inline uint8_t *pcluster_written(pcluster_writer *writer)
{
    return writer->heap ? writer->heap : writer->small;
}

/* Returns a reader of what is written, as long as it stays so. The faults of the reader are not told. */
static inline pcluster_reader pcluster_read_written(pcluster_writer *writer)
{
    pcluster_reader reader = {pcluster_written(writer), pcluster_written(writer) + writer->length, NULL, NULL};
    return reader;
}

/* Empties a writer, and returns its memory. */
static inline void pcluster_clear(pcluster_writer *writer)
{
    free(writer->heap);
    writer->heap = NULL;
    writer->length = writer->room = 0;
}

/* Makes room for more bytes. Returns where they go. The instance ends if there is no memory for them. */
static inline uint8_t *pcluster_extend(pcluster_writer *writer, size_t more)
{
    size_t room = writer->heap ? writer->room : sizeof writer->small, wanted = writer->length + more;
    if (wanted > room) {
        room = wanted > 2 * room ? wanted : 2 * room;
        uint8_t *heap = (uint8_t *)realloc(writer->heap, room);
        if (!heap)
            abort();
        if (!writer->heap)
            memcpy(heap, writer->small, writer->length);
        writer->heap = heap;
        writer->room = room;
    }
    writer->length = wanted;
    return pcluster_written(writer) + (wanted - more);
}

/* Writes bytes that are CBOR already. */
static inline void pcluster_put_raw(pcluster_writer *writer, const void *bytes, size_t size)
{
    uint8_t *to = pcluster_extend(writer, size);
    if (size > 0)
        memcpy(to, bytes, size);
}

static inline void pcluster_put_head(pcluster_writer *writer, unsigned major, uint64_t argument)
{
    uint8_t head[9];
    pcluster_put_raw(writer, head, pcluster_write_head(head, major, argument));
}

static inline void pcluster_put_byte(pcluster_writer *writer, uint8_t byte)
{
    pcluster_put_raw(writer, &byte, 1);
}

/* Writes a number from 0 to 2^64-1. */
static inline void pcluster_put_unsigned(pcluster_writer *writer, uint64_t number)
{
    pcluster_put_head(writer, 0, number);
}

/* Writes a number from -2^63 to 2^63-1. */
static inline void pcluster_put_integer(pcluster_writer *writer, int64_t number)
{
    pcluster_put_head(writer, number < 0, number < 0 ? (uint64_t)(-1 - number) : (uint64_t)number);
}

/* Writes the number -1-n, from -2^64 to -1. */
static inline void pcluster_put_negative(pcluster_writer *writer, uint64_t n)
{
    pcluster_put_head(writer, 1, n);
}

/* Writes a float. */
static inline void pcluster_put_float(pcluster_writer *writer, double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    uint8_t *to = pcluster_extend(writer, 9);
    to[0] = 0xfb;
    for (unsigned at = 0; at < 8; at++)
        to[1 + at] = (uint8_t)(bits >> (56 - 8 * at));
}

/* Writes true or false. */
static inline void pcluster_put_bool(pcluster_writer *writer, bool flag)
{
    pcluster_put_byte(writer, flag ? 0xf5 : 0xf4);
}

/* Writes null. */
static inline void pcluster_put_null(pcluster_writer *writer)
{
    pcluster_put_byte(writer, 0xf6);
}

/* Writes a text of this length, in UTF-8. */
static inline void pcluster_put_text_of(pcluster_writer *writer, const char *text, size_t length)
{
    pcluster_put_head(writer, 3, length);
    pcluster_put_raw(writer, text, length);
}

/* Writes a text that ends with a NUL, or the key of an entry. */
static inline void pcluster_put_text(pcluster_writer *writer, const char *text)
{
    pcluster_put_text_of(writer, text, strlen(text));
}

/* Writes a text of an item. */
static inline void pcluster_put_span(pcluster_writer *writer, pcluster_span text)
{
    pcluster_put_text_of(writer, text.start, text.length);
}

/* Writes bytes. */
static inline void pcluster_put_bytes(pcluster_writer *writer, const void *bytes, size_t size)
{
    pcluster_put_head(writer, 2, size);
    pcluster_put_raw(writer, bytes, size);
}

/* Writes a tag. The tagged value follows. */
static inline void pcluster_put_tag(pcluster_writer *writer, uint64_t tag)
{
    pcluster_put_head(writer, 6, tag);
}

/* Begins a list of this many values, which follow. */
static inline void pcluster_put_list(pcluster_writer *writer, uint64_t values)
{
    if (values == PCLUSTER_UNTIL_END)
        pcluster_put_byte(writer, 0x9f);
    else
        pcluster_put_head(writer, 4, values);
}

/* Begins a map of this many entries, which follow: each a key and a value. */
static inline void pcluster_put_map(pcluster_writer *writer, uint64_t entries)
{
    if (entries == PCLUSTER_UNTIL_END)
        pcluster_put_byte(writer, 0xbf);
    else
        pcluster_put_head(writer, 5, entries);
}

/* Ends a list or map that began with PCLUSTER_UNTIL_END. */
static inline void pcluster_put_end(pcluster_writer *writer)
{
    pcluster_put_byte(writer, 0xff);
}

/* Takes the next value of an item, and writes it as it is. */
static inline void pcluster_put_value(pcluster_writer *writer, pcluster_reader *reader)
{
    const uint8_t *start = reader->at;
    if (pcluster_kind_of(reader) == PCLUSTER_NOTHING)
        pcluster_misfit(reader, "is missing");
    else
        pcluster_skip(reader);
    pcluster_put_raw(writer, start, (size_t)(reader->at - start));
}

#endif
