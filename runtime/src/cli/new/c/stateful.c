#include <pcluster.h>

/* The state: a large table in practice. */
static pcluster_writer meanings;

/* Makes the state, once. Each item starts with a copy of it, which costs nothing. */
static pcluster_status load(void)
{
    pcluster_reader config = pcluster_config();
    if (!pcluster_has(&config, "meanings"))
        return pcluster_fail(PCLUSTER_FATAL, "the `config` of the stage has no meanings");
    pcluster_reader given = pcluster_field(&config, "meanings");
    pcluster_put_value(&meanings, &given);
    return PCLUSTER_DONE;
}

/* Adds the meaning of a word. */
static pcluster_status run(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word");
    pcluster_reader known = pcluster_read_written(&meanings);
    pcluster_reader meaning = pcluster_field_of(&known, word);
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "word");
    pcluster_put_span(&out, word);
    pcluster_put_text(&out, "meaning");
    if (pcluster_kind_of(&meaning) == PCLUSTER_TEXT)
        pcluster_put_span(&out, pcluster_read_text(&meaning));
    else
        pcluster_put_null(&out);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK_WITH_STATE(task_name, run, load)
