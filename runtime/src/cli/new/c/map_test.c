#include "tasks.c"

#undef NDEBUG
#include <assert.h>

static pcluster_status run_on(const char *word)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_map(&item, 1);
    pcluster_put_text(&item, "word");
    pcluster_put_text(&item, word);
    return pcluster_test_run(pcluster_task_task_name, &item);
}

static void letters_are_counted(void)
{
    assert(run_on("größe") == PCLUSTER_DONE);
    pcluster_reader output = pcluster_test_output(0);
    assert(pcluster_field_integer(&output, "letters") == 5);
}

static void a_word_that_is_too_long_fails_for_good(void)
{
    pcluster_writer config = PCLUSTER_WRITER;
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "most");
    pcluster_put_unsigned(&config, 4);
    pcluster_test_config(&config);
    assert(run_on("größe") == PCLUSTER_FATAL);
    assert(strcmp(pcluster_test_reason(), "`größe` is too long") == 0);
}

int main(void)
{
    letters_are_counted();
    a_word_that_is_too_long_fails_for_good();
    puts("2 tests hold");
}
