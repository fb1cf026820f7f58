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

// Counts the letters of a word.
pcluster_status run(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word");
    std::int64_t letters = count_letters({word.start, word.length});
    pcluster_reader config = pcluster_config();
    if (pcluster_has(&config, "most") && letters > pcluster_field_integer(&config, "most")) {
        // No later attempt can succeed: the item becomes a dead letter at once.
        return pcluster_fail(PCLUSTER_FATAL, "`%.*s` is too long", PCLUSTER_SPAN(word));
    }
    pcluster_log(PCLUSTER_INFO, "measuring %.*s", PCLUSTER_SPAN(word));
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "word");
    pcluster_put_span(&out, word);
    pcluster_put_text(&out, "letters");
    pcluster_put_integer(&out, letters);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

} // namespace

PCLUSTER_TASK(task_name, run)
