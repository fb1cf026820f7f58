#include "tasks.cpp"

#undef NDEBUG
#include <cassert>

namespace
{

// Returns how many items become of a word.
std::size_t outputs_of(const char *word)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_map(&item, 1);
    pcluster_put_text(&item, "word");
    pcluster_put_text(&item, word);
    pcluster_status status = pcluster_test_run(pcluster_task_task_name, &item);
    assert(status == PCLUSTER_DONE);
    return pcluster_test_outputs();
}

void long_words_are_kept()
{
    pcluster_writer config = PCLUSTER_WRITER;
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "least");
    pcluster_put_unsigned(&config, 5);
    pcluster_test_config(&config);
    assert(outputs_of("maß") == 0);
    assert(outputs_of("größe") == 1);
    pcluster_reader output = pcluster_test_output(0);
    assert(pcluster_is(pcluster_field_text(&output, "word"), "größe"));
}

} // namespace

int main()
{
    long_words_are_kept();
    puts("1 test holds");
}
