/* Counts the lines, words and bytes of a text. */

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "bindings/scutwork.h"

bool handle(const Task *task, Output *output, Failure *failure) {
    size_t lines = 0, words = 0, bytes = task->payload.len;
    int in_word = 0, last = '\n';
    if (bytes == 0) {
        /* It can never work: a dead letter at once. */
        return reject(failure, "empty", "there is nothing to count");
    }
    if (payload_is(task, "busy") && task->attempt < 3) {
        /* It may work later: it runs again after a while, up to retry.max_attempts. */
        return retry(failure, "busy", "pretends to be busy");
    }
    if (payload_is(task, "crash")) {
        /* A bug: the host ends it, and it counts as a retry. */
        fprintf(stderr, "asked to crash\n");
        abort();
    }
    for (size_t i = 0; i < bytes; i++) {
        last = task->payload.ptr[i];
        lines += last == '\n';
        words += !isspace(last) && !in_word;
        in_word = !isspace(last);
    }
    lines += last != '\n';
    log_line(SCUTWORK_TASK_LOG_LEVEL_INFO, "counted");
    progress(1, 1, "counted");
    char json[96];
    int size = snprintf(json, sizeof json, "{\"lines\":%zu,\"words\":%zu,\"bytes\":%zu}", lines, words, bytes);
    return done(output, "application/json", json, (size_t)size);
}
