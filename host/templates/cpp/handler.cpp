// Counts the lines, words and bytes of a text.

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

#include "bindings/scutwork.h"

static size_t count(const std::string &text, char separator) {
    std::istringstream in(text);
    size_t count = 0;
    std::string part;
    while (separator ? bool(std::getline(in, part, separator)) : bool(in >> part)) count++;
    return count;
}

bool handle(const Task *task, Output *output, Failure *failure) {
    const std::string text(reinterpret_cast<const char *>(task->payload.ptr), task->payload.len);
    if (text.empty()) {
        // It can never work: a dead letter at once.
        return reject(failure, "empty", "there is nothing to count");
    }
    if (text == "busy" && task->attempt < 3) {
        // It may work later: it runs again after a while, up to retry.max_attempts.
        return retry(failure, "busy", "pretends to be busy");
    }
    if (text == "crash") {
        // A bug: the host ends it, and it counts as a retry.
        std::fprintf(stderr, "asked to crash\n");
        std::abort();
    }
    const std::string json = "{\"lines\":" + std::to_string(count(text, '\n')) +
                             ",\"words\":" + std::to_string(count(text, '\0')) +
                             ",\"bytes\":" + std::to_string(text.size()) + "}";
    log_line(SCUTWORK_TASK_LOG_LEVEL_INFO, "counted");
    progress(1, 1, "counted");
    return done(output, "application/json", json.data(), json.size());
}
