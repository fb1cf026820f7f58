/*
 * Runs the task `echo` on each line of standard input, an item in hexadecimal. Writes a line for each: the output in hexadecimal,
 * or "refused: " and the reason.
 */
#include "../../../tests/e2e/plugins/probe.c"

int main(void)
{
    int byte, digits = 0;
    unsigned value = 0;
    pcluster_writer item = PCLUSTER_WRITER;
    while ((byte = getchar()) != EOF) {
        if (byte != '\n') {
            value = value << 4 | (unsigned)(byte <= '9' ? byte - '0' : byte - 'a' + 10);
            if (++digits % 2 == 0)
                pcluster_put_byte(&item, (uint8_t)value);
            continue;
        }
        if (pcluster_test_run(pcluster_task_echo, &item) != PCLUSTER_DONE)
            printf("refused: %s", pcluster_test_reason());
        pcluster_reader output = pcluster_test_output(0);
        for (; output.at < output.end; output.at++)
            printf("%02x", *output.at);
        printf("\n");
    }
    return 0;
}
