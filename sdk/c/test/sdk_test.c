/* Tests the SDK on this machine: `make -C sdk/c test`. */
#include <pcluster.h>

#undef NDEBUG
#include <assert.h>
#include <math.h>

static char mode[16];

/* Does what `mode` names. */
static pcluster_status probe(pcluster_reader *item)
{
    pcluster_writer out = PCLUSTER_WRITER;
    if (strcmp(mode, "integer") == 0)
        pcluster_put_integer(&out, pcluster_field_integer(item, "n"));
    else if (strcmp(mode, "float") == 0)
        pcluster_put_float(&out, pcluster_field_float(item, "n"));
    else if (strcmp(mode, "text") == 0)
        pcluster_put_span(&out, pcluster_field_text(item, "n"));
    else if (strcmp(mode, "later") == 0)
        return pcluster_retry_after(1500, "busy %d", 7);
    else if (strcmp(mode, "short") == 0)
        pcluster_put_map(&out, 2);
    else if (strcmp(mode, "topic") == 0) {
        pcluster_put_null(&out);
        pcluster_emit_to(&out, "other");
        return PCLUSTER_DONE;
    } else if (strcmp(mode, "config") == 0) {
        pcluster_reader config = pcluster_config();
        pcluster_put_integer(&out, pcluster_has(&config, "n") ? pcluster_field_integer(&config, "n") : -1);
    } else if (strcmp(mode, "call") == 0) {
        pcluster_reader answer;
        pcluster_put_map(&out, 0);
        if (!pcluster_call("kv.get", &out, &answer))
            return pcluster_fail_call(&answer);
        pcluster_put_span(&out, pcluster_field_text(&answer, "value"));
    } else {
        pcluster_span id = pcluster_id();
        pcluster_log(PCLUSTER_WARN, "%.*s at attempt %u", PCLUSTER_SPAN(id), pcluster_attempt());
        return PCLUSTER_DONE;
    }
    pcluster_emit(&out);
    return PCLUSTER_DONE;
}

PCLUSTER_TASK(probe, probe)

/* Runs the task on bytes. */
static pcluster_status on(const char *how, const char *bytes, size_t size)
{
    pcluster_writer item = PCLUSTER_WRITER;
    pcluster_put_raw(&item, bytes, size);
    snprintf(mode, sizeof mode, "%s", how);
    return pcluster_test_run(pcluster_task_probe, &item);
}

#define ON(how, bytes) on(how, bytes, sizeof bytes - 1)

/* Checks that an item is refused with this reason. */
#define REFUSED(how, bytes, reason) \
    do { \
        assert(ON(how, bytes) == PCLUSTER_FATAL); \
        if (!strstr(pcluster_test_reason(), reason)) { \
            fprintf(stderr, "%s\n", pcluster_test_reason()); \
            assert(!"another reason"); \
        } \
    } while (0)

/* Checks that the one output has these bytes. */
#define GIVES(how, bytes, output) \
    do { \
        assert(ON(how, bytes) == PCLUSTER_DONE); \
        pcluster_reader given = pcluster_test_output(0); \
        assert((size_t)(given.end - given.at) == sizeof output - 1); \
        assert(memcmp(given.at, output, sizeof output - 1) == 0); \
    } while (0)

static void test_fields(void)
{
    GIVES("integer", "\xa1\x61n\x18\x2a", "\x18\x2a");
    GIVES("integer", "\xa2\x61n\x01\x61n\x20", "\x20");
    GIVES("integer", "\xbf\x9f\x01\xff\x80\x61n\x3b\x7f\xff\xff\xff\xff\xff\xff\xff\xff", "\x3b\x7f\xff\xff\xff\xff\xff\xff\xff");
    GIVES("text", "\xa1\x61n\x7f\x61y\x60\x62\xc3\xa4\xff", "\x63y\xc3\xa4");
    GIVES("text", "\xa1\x7f\x61n\xff\x61y", "\x61y");
    REFUSED("integer", "\xa0", "the item does not fit the task: `n` is missing");
    REFUSED("integer", "\xa1\x61n\xf6", "`n` is not a whole number from -2^63 to 2^63-1");
    REFUSED("integer", "\xa1\x61n\x1b\x80\x00\x00\x00\x00\x00\x00\x00", "`n` is not a whole number from -2^63");
    REFUSED("integer", "\xa1\x61n\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00", "`n` is not a whole number");
    REFUSED("integer", "\x01", "a value is not a map");
    REFUSED("text", "\xa1\x61n\x41y", "`n` is not a text");
}

static void test_floats(void)
{
    GIVES("float", "\xa1\x61n\xf9\x80\x00", "\xfb\x80\x00\x00\x00\x00\x00\x00\x00");
    GIVES("float", "\xa1\x61n\xf9\x7c\x00", "\xfb\x7f\xf0\x00\x00\x00\x00\x00\x00");
    GIVES("float", "\xa1\x61n\xf9\x00\x01", "\xfb\x3e\x70\x00\x00\x00\x00\x00\x00");
    GIVES("float", "\xa1\x61n\xfa\x3f\x80\x00\x00", "\xfb\x3f\xf0\x00\x00\x00\x00\x00\x00");
    GIVES("float", "\xa1\x61n\x03", "\xfb\x40\x08\x00\x00\x00\x00\x00\x00");
    GIVES("float", "\xa1\x61n\x3b\xff\xff\xff\xff\xff\xff\xff\xff", "\xfb\xc3\xf0\x00\x00\x00\x00\x00\x00");
    REFUSED("float", "\xa1\x61n\x1b\x00\x20\x00\x00\x00\x00\x00\x01", "`n` is a whole number that no double holds exactly");
    REFUSED("float", "\xa1\x61n\x1b\xff\xff\xff\xff\xff\xff\xff\xff", "`n` is a whole number that no double holds exactly");
    assert(ON("float", "\xa1\x61n\xf9\x7e\x00") == PCLUSTER_DONE);
    pcluster_reader output = pcluster_test_output(0);
    assert(isnan(pcluster_read_float(&output)));
}

static void test_malformed(void)
{
    static const char *const early[] = {"", "\xa1", "\xa1\x61n", "\x62y", "\x9f\x01", "\x7f\x61y", "\x19\x01", "\xc0", "\x9b\xff\xff\xff\xff\xff\xff\xff\xff"};
    for (size_t at = 0; at < sizeof early / sizeof *early; at++) {
        assert(on("", early[at], strlen(early[at])) == PCLUSTER_FATAL);
        assert(strcmp(pcluster_test_reason(), "the item cannot be read: the data ends too early") == 0);
    }
    REFUSED("", "\x01\x01", "more bytes follow it");
    REFUSED("", "\x1c", "no value begins like this");
    REFUSED("", "\xf8\x18", "no value begins like this");
    REFUSED("", "\xe5", "there is no such simple value");
    REFUSED("", "\xf8\x63", "there is no such simple value");
    REFUSED("", "\xc2\x01", "a large number is not bytes");
    REFUSED("", "\xdf\x01", "no value begins like this");
    REFUSED("", "\xff", "a break ends nothing");
    REFUSED("", "\xbf\x01\xff", "a break ends nothing");
    REFUSED("", "\x81\xff", "a break ends nothing");
    REFUSED("", "\x7f\x41y\xff", "a piece of a string is none");
    REFUSED("", "\x61\xff", "a text is not UTF-8");
    REFUSED("", "\x63\xed\xa0\x80", "a text is not UTF-8");
    REFUSED("", "\x62\xc0\x80", "a text is not UTF-8");
    REFUSED("", "\x64\xf4\x90\x80\x80", "a text is not UTF-8");
    char deep[PCLUSTER_DEPTH + 2];
    memset(deep, 0x81, sizeof deep);
    deep[PCLUSTER_DEPTH] = 1;
    assert(on("", deep, PCLUSTER_DEPTH + 1) == PCLUSTER_DONE);
    deep[PCLUSTER_DEPTH] = (char)0x81;
    deep[PCLUSTER_DEPTH + 1] = 1;
    assert(on("", deep, PCLUSTER_DEPTH + 2) == PCLUSTER_FATAL);
    assert(strstr(pcluster_test_reason(), "nested too deeply"));
}

static void test_pieces(void)
{
    /* Many small pieces become a text with a longer head, in place. */
    char item[3 * 400 + 8] = "\xa1\x61n\x7f", *to = item + 4;
    for (int piece = 0; piece < 400; piece++) {
        *to++ = 0x61;
        *to++ = (char)('a' + piece % 26);
    }
    *to++ = (char)0xff;
    assert(on("text", item, (size_t)(to - item)) == PCLUSTER_DONE);
    pcluster_reader output = pcluster_test_output(0);
    pcluster_span text = pcluster_read_text(&output);
    assert(text.length == 400 && text.start[27] == 'b' && text.start[399] == (char)('a' + 399 % 26));
}

static void test_ends(void)
{
    assert(ON("later", "\x01") == PCLUSTER_FAILED);
    assert(strcmp(pcluster_test_reason(), "busy 7") == 0 && pcluster_test_delay() == 1500);
    REFUSED("short", "\x01", "an output is not one CBOR item: the data ends too early");
    assert(ON("topic", "\x01") == PCLUSTER_DONE);
    assert(strcmp(pcluster_test_topics(), "other\n") == 0);
    pcluster_test_attempt(3);
    assert(ON("", "\x01") == PCLUSTER_DONE);
    assert(strcmp(pcluster_test_log(), "warn: test at attempt 3\n") == 0 && pcluster_test_delay() == -1);
}

static bool answer(const char *name, pcluster_reader *request, pcluster_writer *to)
{
    assert(strcmp(name, "kv.get") == 0 && pcluster_kind_of(request) == PCLUSTER_MAP);
    pcluster_put_map(to, 1);
    pcluster_put_text(to, "value");
    pcluster_put_text(to, "here");
    return true;
}

static bool refuse(const char *name, pcluster_reader *request, pcluster_writer *to)
{
    (void)name, (void)request;
    pcluster_put_map(to, 3);
    pcluster_put_text(to, "message");
    pcluster_put_text(to, "nobody answers");
    pcluster_put_text(to, "transient");
    pcluster_put_bool(to, true);
    pcluster_put_text(to, "retry_after_ms");
    pcluster_put_unsigned(to, 20);
    return false;
}

static void test_calls(void)
{
    REFUSED("call", "\x01", "nothing answers it");
    pcluster_test_calls(answer);
    GIVES("call", "\x01", "\x64here");
    pcluster_test_calls(refuse);
    assert(ON("call", "\x01") == PCLUSTER_FAILED);
    assert(strcmp(pcluster_test_reason(), "nobody answers") == 0 && pcluster_test_delay() == 20);
}

static void test_config(void)
{
    GIVES("config", "\x01", "\x20");
    pcluster_writer config = PCLUSTER_WRITER;
    pcluster_put_map(&config, 1);
    pcluster_put_text(&config, "n");
    pcluster_put_integer(&config, 5);
    pcluster_test_config(&config);
    GIVES("config", "\x01", "\x05");
}

int main(void)
{
    test_fields();
    test_floats();
    test_malformed();
    test_pieces();
    test_ends();
    test_calls();
    test_config();
    puts("the SDK holds");
    return 0;
}
