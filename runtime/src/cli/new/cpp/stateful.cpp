#include <pcluster.h>

#include <functional>
#include <map>
#include <string>
#include <string_view>

namespace
{

// The state: a large table in practice.
std::map<std::string, std::string, std::less<>> meanings;

// Makes the state, once. Each item starts with a copy of it, which costs nothing.
pcluster_status load()
{
    pcluster_reader config = pcluster_config();
    if (!pcluster_has(&config, "meanings"))
        return pcluster_fail(PCLUSTER_FATAL, "the `config` of the stage has no meanings");
    pcluster_reader given = pcluster_field(&config, "meanings");
    for (pcluster_entries entries = pcluster_read_map(&given); pcluster_next(&given, &entries);) {
        pcluster_span word = pcluster_read_text(&given), meaning = pcluster_read_text(&given);
        meanings.emplace(std::string(word.start, word.length), std::string(meaning.start, meaning.length));
    }
    return PCLUSTER_DONE;
}

// Adds the meaning of a word.
pcluster_status run(pcluster_reader *item)
{
    pcluster_span word = pcluster_field_text(item, "word");
    auto known = meanings.find(std::string_view(word.start, word.length));
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 2);
    pcluster_put_text(&out, "word");
    pcluster_put_span(&out, word);
    pcluster_put_text(&out, "meaning");
    if (known != meanings.end())
        pcluster_put_text(&out, known->second.c_str());
    else
        pcluster_put_null(&out);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

} // namespace

PCLUSTER_TASK_WITH_STATE(task_name, run, load)
