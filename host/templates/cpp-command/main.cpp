// Counts the lines, words and bytes of a text on stdin.

#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string>

// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
constexpr int RETRY = 75;
constexpr int REJECT = 65;

static std::string payload() {
    std::string text;
    char buffer[4096];
    while (size_t size = std::fread(buffer, 1, sizeof buffer, stdin)) text.append(buffer, size);
    return text;
}

static size_t count(const std::string &text, char separator) {
    std::istringstream in(text);
    size_t count = 0;
    std::string part;
    while (separator ? bool(std::getline(in, part, separator)) : bool(in >> part)) count++;
    return count;
}

int main() {
    const std::string text = payload();
    const char *attempt = std::getenv("SCUTWORK_ATTEMPT");
    if (text.empty()) {
        std::fprintf(stderr, "there is nothing to count\n");
        return REJECT;
    }
    if (text == "busy" && (!attempt || std::atoi(attempt) < 3)) {
        std::fprintf(stderr, "pretends to be busy\n");
        return RETRY;
    }
    if (text == "crash") {
        std::fprintf(stderr, "asked to crash\n");
        std::abort();
    }
    std::printf("{\"lines\":%zu,\"words\":%zu,\"bytes\":%zu}", count(text, '\n'), count(text, '\0'), text.size());
}
