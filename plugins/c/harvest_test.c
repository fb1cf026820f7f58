/* Tests the tasks on this machine: `make -C plugins/c test`. */
#include "harvest.c"

#undef NDEBUG
#include <assert.h>

static void set_labels(void)
{
    pcluster_writer config = PCLUSTER_WRITER;
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "labels");
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "pea");
    pcluster_put_text(&config, "seed");
    pcluster_test_config(&config);
}

static pcluster_status run_on_text(int32_t (*task)(uint8_t *, size_t), const char *text)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_text(&item, text);
    return pcluster_test_run(task, &item);
}

static pcluster_status run_on_label(const char *word, const char *label)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_map(&item, 2);
    pcluster_put_text(&item, "word");
    pcluster_put_text(&item, word);
    pcluster_put_text(&item, "label");
    pcluster_put_text(&item, label);
    return pcluster_test_run(pcluster_task_describe, &item);
}

int main(void)
{
    assert(run_on_text(pcluster_task_words, " a pea ") == PCLUSTER_DONE);
    assert(pcluster_test_outputs() == 2);
    pcluster_reader output = pcluster_test_output(1);
    assert(pcluster_is(pcluster_read_text(&output), "pea"));

    /* No labels: each item would try again to make the state. */
    assert(run_on_text(pcluster_task_classify, "pea") == PCLUSTER_FATAL);
    assert(strstr(pcluster_test_reason(), "has no `labels`"));
    set_labels();
    assert(run_on_text(pcluster_task_classify, "pea") == PCLUSTER_DONE);
    output = pcluster_test_output(0);
    assert(pcluster_is(pcluster_field_text(&output, "label"), "seed"));
    assert(run_on_text(pcluster_task_classify, "sea") == PCLUSTER_DONE);
    assert(pcluster_test_outputs() == 0);

    assert(run_on_label("pea", "seed") == PCLUSTER_DONE);
    output = pcluster_test_output(0);
    assert(pcluster_is(pcluster_read_text(&output), "pea: seed"));
    assert(strcmp(pcluster_test_log(), "debug: attempt 1 of pea\n") == 0);
    assert(run_on_label("pebble", "stone") == PCLUSTER_FATAL);
    assert(strcmp(pcluster_test_reason(), "nobody harvests a pebble") == 0);

    /* An item of another form fails without a line of the task. */
    assert(run_on_text(pcluster_task_describe, "pea") == PCLUSTER_FATAL);
    assert(strstr(pcluster_test_reason(), "the item does not fit the task: a value is not a map"));
    puts("the tasks hold");
    return 0;
}
