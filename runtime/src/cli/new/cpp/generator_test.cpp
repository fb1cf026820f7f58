#include "tasks.cpp"

#undef NDEBUG
#include <cassert>

namespace
{

// Returns how many items become of a text.
std::size_t outputs_of(const char *text)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_map(&item, 1);
    pcluster_put_text(&item, "text");
    pcluster_put_text(&item, text);
    pcluster_status status = pcluster_test_run(pcluster_task_task_name, &item);
    assert(status == PCLUSTER_DONE);
    return pcluster_test_outputs();
}

void a_text_is_split_into_its_words()
{
    const char *const words[] = {"a", "größe", "of", "two"};
    assert(outputs_of(" A größe, of TWO ") == 4);
    for (std::size_t at = 0; at < 4; at++) {
        pcluster_reader output = pcluster_test_output(at);
        assert(pcluster_is(pcluster_field_text(&output, "word"), words[at]));
    }
    assert(outputs_of(" ") == 0);
}

} // namespace

int main()
{
    a_text_is_split_into_its_words();
    puts("1 test holds");
}
