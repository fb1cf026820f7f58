#include <pcluster.h>

#include <algorithm>
#include <string_view>

namespace
{

// Returns the number of letters of a text in UTF-8.
std::int64_t count_letters(std::string_view text)
{
    // All bytes of a letter but the first begin with the bits 10.
    return std::ranges::count_if(text, [](char byte) { return (byte & 0xc0) != 0x80; });
}

// Keeps long words, and drops the others.
pcluster_status run(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word");
    pcluster_reader config = pcluster_config();
    std::int64_t least = pcluster_has(&config, "least") ? pcluster_field_integer(&config, "least") : 1;
    // A task that emits nothing drops its item.
    if (count_letters({word.start, word.length}) < least)
        return PCLUSTER_DONE;
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_value(&out, item);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

} // namespace

PCLUSTER_TASK(task_name, run)
