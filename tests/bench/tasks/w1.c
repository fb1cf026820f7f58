/* The three typical stages in C, for texts in ASCII. */
#include <ctype.h>
#include <pcluster.h>
#include <stdlib.h>

/* Emits a record with a part of a text. */
static void emit_part(int64_t id, const char *start, size_t length)
{
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "id");
    pcluster_put_integer(&out, id);
    pcluster_put_text(&out, "text");
    pcluster_put_text_of(&out, start, length);
    pcluster_emit(&out);
}

/* Splits a record into two with half of the text each. */
static pcluster_status halve(pcluster_reader *item)
{
    int64_t id = pcluster_field_integer(item, "id");
    pcluster_span text = pcluster_field_text(item, "text");
    size_t middle = text.length / 2;
    emit_part(id * 2, text.start, middle);
    emit_part(id * 2 + 1, text.start + middle, text.length - middle);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(halve, halve)

/* Puts the text in upper case and counts its words. */
static pcluster_status count_words(pcluster_reader *item)
{
    int64_t id = pcluster_field_integer(item, "id");
    pcluster_span text = pcluster_field_text(item, "text");
    char *upper = malloc(text.length + 1);
    if (upper == NULL)
        return pcluster_fail(PCLUSTER_FAILED, "no memory for %zu letters", text.length);
    uint64_t words = 0;
    bool is_inside = false;
    for (size_t at = 0; at < text.length; at++) {
        unsigned char letter = (unsigned char)text.start[at];
        words += !isspace(letter) && !is_inside;
        is_inside = !isspace(letter);
        upper[at] = (char)toupper(letter);
    }
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 3);
    pcluster_put_text(&out, "id");
    pcluster_put_integer(&out, id);
    pcluster_put_text(&out, "text");
    pcluster_put_text_of(&out, upper, text.length);
    pcluster_put_text(&out, "words");
    pcluster_put_unsigned(&out, words);
    pcluster_emit(&out);
    free(upper);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(count_words, count_words)

/* Keeps the records whose id is even. */
static pcluster_status keep_even(pcluster_reader *item)
{
    if (pcluster_field_integer(item, "id") % 2 != 0)
        return PCLUSTER_DONE;
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_value(&out, item);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(keep_even, keep_even)
