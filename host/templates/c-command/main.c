/* Counts the lines, words and bytes of a text on stdin. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task. */
enum { RETRY = 75, REJECT = 65 };

int main(void) {
    const char *attempt = getenv("SCUTWORK_ATTEMPT");
    char start[8] = "";
    size_t lines = 0, words = 0, bytes = 0;
    int in_word = 0, last = '\n', byte;
    while ((byte = getchar()) != EOF) {
        if (bytes < sizeof start - 1) start[bytes] = (char)byte;
        bytes++;
        lines += byte == '\n';
        words += !isspace(byte) && !in_word;
        in_word = !isspace(byte);
        last = byte;
    }
    lines += last != '\n';
    if (bytes == 0) {
        fprintf(stderr, "there is nothing to count\n");
        return REJECT;
    }
    if (strcmp(start, "busy") == 0 && (!attempt || atoi(attempt) < 3)) {
        fprintf(stderr, "pretends to be busy\n");
        return RETRY;
    }
    if (strcmp(start, "crash") == 0) {
        fprintf(stderr, "asked to crash\n");
        abort();
    }
    printf("{\"lines\":%zu,\"words\":%zu,\"bytes\":%zu}", lines, words, bytes);
    return 0;
}
