/* A task in C that the benchmark of the engine measures. */
#include <ctype.h>
#include <pcluster.h>

/* Reads all of a record, and writes six fields. */
static pcluster_status record(pcluster_reader *item)
{
    pcluster_span customer = pcluster_field_text(item, "customer");
    char upper[64];
    if (customer.length > sizeof upper)
        return pcluster_fail(PCLUSTER_FATAL, "`customer` has %zu letters", customer.length);
    for (size_t at = 0; at < customer.length; at++)
        upper[at] = (char)toupper((unsigned char)customer.start[at]);
    pcluster_reader articles = pcluster_field(item, "articles");
    pcluster_entries entries = pcluster_read_list(&articles);
    uint64_t count = 0;
    while (pcluster_next(&articles, &entries)) {
        pcluster_read_text(&articles);
        count++;
    }
    pcluster_field_text(item, "zone");
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_map(&out, 6);
    pcluster_put_text(&out, "id");
    pcluster_put_integer(&out, pcluster_field_integer(item, "id") + 1);
    pcluster_put_text(&out, "customer");
    pcluster_put_text_of(&out, upper, customer.length);
    pcluster_put_text(&out, "articles");
    pcluster_put_unsigned(&out, count);
    pcluster_put_text(&out, "total");
    pcluster_put_float(&out, pcluster_field_float(item, "total") * 2);
    pcluster_put_text(&out, "paid");
    pcluster_put_bool(&out, !pcluster_field_bool(item, "paid"));
    pcluster_put_text(&out, "note");
    pcluster_put_span(&out, pcluster_field_text(item, "note"));
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(record, record)
