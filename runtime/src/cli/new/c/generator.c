#include <ctype.h>
#include <pcluster.h>

/* Returns true for a byte of a word: a letter or digit, or a byte of a letter beyond ASCII. */
static bool is_of_word(char byte)
{
    return isalnum((unsigned char)byte) || (unsigned char)byte >= 0x80;
}

/* Emits a word. Letters of ASCII become small ones. */
static void emit_word(pcluster_span word)
{
    char *small = malloc(word.length);
    for (size_t at = 0; small && at < word.length; at++)
        small[at] = (char)tolower((unsigned char)word.start[at]);
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 1);
    pcluster_put_text(&out, "word");
    pcluster_put_text_of(&out, small ? small : word.start, word.length);
    pcluster_emit(&out);
    free(small);
}

/* Splits a text into its words. */
static pcluster_status run(pcluster_reader *item)
{
    pcluster_span text = pcluster_field_text(item, "text");
    const char *at = text.start, *end = text.start + text.length;
    while (at < end) {
        pcluster_span word = {at, 0};
        while (at < end && is_of_word(*at))
            at++;
        word.length = (size_t)(at - word.start);
        if (word.length > 0)
            emit_word(word);
        else
            at++;
    }
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(task_name, run)
