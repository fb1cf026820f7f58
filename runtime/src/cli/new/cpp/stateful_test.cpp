#include "tasks.cpp"

#undef NDEBUG
#include <cassert>

namespace
{

pcluster_status run_on(const char *word)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_map(&item, 1);
    pcluster_put_text(&item, "word");
    pcluster_put_text(&item, word);
    return pcluster_test_run(pcluster_task_task_name, &item);
}

void a_state_needs_meanings()
{
    assert(run_on("eg") == PCLUSTER_FATAL);
    assert(strcmp(pcluster_test_reason(), "the `config` of the stage has no meanings") == 0);
}

void a_word_is_explained_from_the_state()
{
    pcluster_writer config = PCLUSTER_WRITER;
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "meanings");
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "eg");
    pcluster_put_text(&config, "for example");
    pcluster_test_config(&config);
    assert(run_on("eg") == PCLUSTER_DONE);
    pcluster_reader output = pcluster_test_output(0);
    assert(pcluster_is(pcluster_field_text(&output, "meaning"), "for example"));
    assert(run_on("xy") == PCLUSTER_DONE);
    output = pcluster_test_output(0);
    assert(!pcluster_has(&output, "meaning"));
}

} // namespace

int main()
{
    a_state_needs_meanings();
    a_word_is_explained_from_the_state();
    puts("2 tests hold");
}
