#include <pcluster.h>

/* Returns the number of letters of a text in UTF-8. */
static int64_t count_letters(pcluster_span text)
{
    int64_t letters = 0;
    for (size_t at = 0; at < text.length; at++) {
        /* All bytes of a letter but the first begin with the bits 10. */
        letters += ((unsigned char)text.start[at] & 0xc0) != 0x80;
    }
    return letters;
}

/* Keeps long words, and drops the others. */
static pcluster_status run(pcluster_reader *item)
{
    pcluster_reader config = pcluster_config();
    int64_t least = pcluster_has(&config, "least") ? pcluster_field_integer(&config, "least") : 1;
    /* A task that emits nothing drops its item. */
    if (count_letters(pcluster_field_text(item, "word")) < least)
        return PCLUSTER_DONE;
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_value(&out, item);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(task_name, run)
