#include <pcluster.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <string_view>

namespace
{

// Returns true for a byte of a word: a letter or digit, or a byte of a letter beyond ASCII.
bool is_of_word(unsigned char byte)
{
    return std::isalnum(byte) || byte >= 0x80;
}

// Emits a word. Letters of ASCII become small ones.
void emit_word(std::string word)
{
    for (char &byte : word)
        byte = static_cast<char>(std::tolower(static_cast<unsigned char>(byte)));
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 1);
    pcluster_put_text(&out, "word");
    pcluster_put_text_of(&out, word.data(), word.size());
    pcluster_emit(&out);
}

// Splits a text into its words.
pcluster_status run(pcluster_reader *item)
{
    pcluster_span given = pcluster_field_text(item, "text");
    std::string_view text(given.start, given.length);
    for (auto start = text.begin(); start != text.end();) {
        start = std::find_if(start, text.end(), is_of_word);
        auto end = std::find_if_not(start, text.end(), is_of_word);
        if (start != end)
            emit_word({start, end});
        start = end;
    }
    return PCLUSTER_DONE;
}

} // namespace

PCLUSTER_TASK(task_name, run)
