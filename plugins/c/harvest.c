/* Tells what the words of a text are: three tasks in C, as chain.toml puts them together. */
#include <ctype.h>
#include <pcluster.h>

/* Gives each word of a text: a generator. */
static pcluster_status words(pcluster_reader *item)
{
    pcluster_span text = pcluster_read_text(item);
    const char *end = text.start + text.length;
    for (const char *at = text.start; at < end;) {
        const char *start = at;
        while (at < end && !isspace((unsigned char)*at))
            at++;
        if (at > start) {
            pcluster_writer out = PCLUSTER_WRITER;
            pcluster_put_text_of(&out, start, (size_t)(at - start));
            pcluster_emit(&out);
        }
        at++;
    }
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(words, words)

/* The state of `classify`: the labels of the `config`, in CBOR. */
static pcluster_writer labels;

/* Keeps the labels. The `config` lasts until this function returns, so they are copied. */
static pcluster_status load(void)
{
    pcluster_reader config = pcluster_config();
    pcluster_reader given = pcluster_field(&config, "labels");
    if (pcluster_kind_of(&given) != PCLUSTER_MAP)
        return pcluster_fail(PCLUSTER_FATAL, "the stage's `config` has no `labels`");
    pcluster_put_value(&labels, &given);
    return PCLUSTER_DONE;
}

/* Labels a word, or drops it: a filter. */
static pcluster_status classify(pcluster_reader *item)
{
    pcluster_span word = pcluster_read_text(item);
    pcluster_reader known = pcluster_read_written(&labels);
    pcluster_reader label = pcluster_field_of(&known, word);
    if (pcluster_kind_of(&label) != PCLUSTER_TEXT)
        return PCLUSTER_DONE;
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "word");
    pcluster_put_span(&out, word);
    pcluster_put_text(&out, "label");
    pcluster_put_span(&out, pcluster_read_text(&label));
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK_WITH_STATE(classify, classify, load)

/* Describes a word with its label: a map. */
static pcluster_status describe(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word"), label = pcluster_field_text(item, "label");
    if (pcluster_is(label, "stone"))
        return pcluster_fail(PCLUSTER_FATAL, "nobody harvests a %.*s", PCLUSTER_SPAN(word));
    pcluster_log(PCLUSTER_DEBUG, "attempt %u of %.*s", pcluster_attempt(), PCLUSTER_SPAN(word));
    char line[256];
    int length = snprintf(line, sizeof line, "%.*s: %.*s", PCLUSTER_SPAN(word), PCLUSTER_SPAN(label));
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_text_of(&out, line, length < (int)sizeof line ? (size_t)length : sizeof line - 1);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(describe, describe)
