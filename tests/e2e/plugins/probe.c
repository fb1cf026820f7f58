/* Tasks in C that show how values pass, and how a task can end. */
#include <pcluster.h>
#include <time.h>

/* Reads a value by its type, and writes it again. */
static void copy(pcluster_reader *in, pcluster_writer *out)
{
    pcluster_entries entries;
    pcluster_span span;
    switch (pcluster_kind_of(in)) {
    case PCLUSTER_UNSIGNED:
        pcluster_put_unsigned(out, pcluster_read_unsigned(in));
        break;
    case PCLUSTER_NEGATIVE:
        pcluster_put_negative(out, pcluster_read_negative(in));
        break;
    case PCLUSTER_BYTES:
        span = pcluster_read_bytes(in);
        pcluster_put_bytes(out, span.start, span.length);
        break;
    case PCLUSTER_TEXT:
        pcluster_put_span(out, pcluster_read_text(in));
        break;
    case PCLUSTER_LIST:
        entries = pcluster_read_list(in);
        pcluster_put_list(out, PCLUSTER_UNTIL_END);
        while (pcluster_next(in, &entries))
            copy(in, out);
        pcluster_put_end(out);
        break;
    case PCLUSTER_MAP:
        entries = pcluster_read_map(in);
        pcluster_put_map(out, PCLUSTER_UNTIL_END);
        while (pcluster_next(in, &entries)) {
            copy(in, out);
            copy(in, out);
        }
        pcluster_put_end(out);
        break;
    case PCLUSTER_TAG:
        pcluster_put_tag(out, pcluster_read_tag(in));
        copy(in, out);
        break;
    case PCLUSTER_BOOL:
        pcluster_put_bool(out, pcluster_read_bool(in));
        break;
    case PCLUSTER_FLOAT:
        pcluster_put_float(out, pcluster_read_float(in));
        break;
    case PCLUSTER_NULL:
        pcluster_skip(in);
        pcluster_put_null(out);
        break;
    case PCLUSTER_NOTHING:
        break;
    }
}

static pcluster_status echo(pcluster_reader *item)
{
    pcluster_writer out = PCLUSTER_WRITER;
    copy(item, &out);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(echo, echo)

static int drawn;

/* What is drawn here is the same in each instance of one snapshot. */
static pcluster_status draw(void)
{
    drawn = rand();
    return PCLUSTER_DONE;
}

/* Gives a list: what the state has drawn, another number, and the milliseconds since 1970. */
static pcluster_status dice(pcluster_reader *item)
{
    (void)item;
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    pcluster_writer out = PCLUSTER_WRITER;
    pcluster_put_list(&out, 3);
    pcluster_put_integer(&out, drawn);
    pcluster_put_integer(&out, rand());
    pcluster_put_integer(&out, now.tv_sec * 1000LL + now.tv_nsec / 1000000);
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK_WITH_STATE(dice, dice, draw)

static int deeper(volatile int *above)
{
    volatile int here[64] = {*above};
    return *above ? deeper(here) + here[1] : 0;
}

/* Ends in the way that the item names. */
static pcluster_status end(pcluster_reader *item)
{
    pcluster_span how = pcluster_read_text(item);
    if (pcluster_is(how, "deep")) {
        volatile int start = 1;
        return (pcluster_status)deeper(&start);
    }
    if (pcluster_is(how, "exit"))
        exit(3);
    if (pcluster_is(how, "half")) {
        printf("half a line of %.*s", PCLUSTER_SPAN(pcluster_id()));
        return PCLUSTER_DONE;
    }
    if (pcluster_is(how, "later"))
        return pcluster_attempt() < 2 ? pcluster_retry_after(10, "not yet") : PCLUSTER_DONE;
    if (pcluster_is(how, "broken")) {
        pcluster_writer out = PCLUSTER_WRITER;
        pcluster_put_list(&out, 2);
        pcluster_put_null(&out);
        pcluster_emit(&out);
        return PCLUSTER_DONE;
    }
    return pcluster_fail(PCLUSTER_FATAL, "no way is named %.*s", PCLUSTER_SPAN(how));
}

PCLUSTER_TASK(end, end)
