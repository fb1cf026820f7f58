#include <pcluster.h>

/* Returns the number of letters of a text in UTF-8. */
static uint64_t count_letters(pcluster_span text)
{
    uint64_t letters = 0;
    for (size_t at = 0; at < text.length; at++) {
        /* All bytes of a letter but the first begin with the bits 10. */
        letters += ((unsigned char)text.start[at] & 0xc0) != 0x80;
    }
    return letters;
}

/* Counts the letters of a word. */
static pcluster_status run(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word");
    uint64_t letters = count_letters(word);
    pcluster_reader config = pcluster_config();
    if (pcluster_has(&config, "most") && letters > (uint64_t)pcluster_field_integer(&config, "most")) {
        /* No later attempt can succeed: the item becomes a dead letter at once. */
        return pcluster_fail(PCLUSTER_FATAL, "`%.*s` is too long", PCLUSTER_SPAN(word));
    }
    pcluster_log(PCLUSTER_INFO, "measuring %.*s", PCLUSTER_SPAN(word));
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "word");
    pcluster_put_span(&out, word);
    pcluster_put_text(&out, "letters");
    pcluster_put_unsigned(&out, letters);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(task_name, run)
