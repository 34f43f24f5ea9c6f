// The handler is a function, tested as any.

#undef NDEBUG
#include <cassert>
#include <string>

#include "../bindings/scutwork.h"

static Output output;
static Failure failure;

static bool handled(std::string payload, uint32_t attempt = 1) {
    Task task{};
    task.payload = {reinterpret_cast<uint8_t *>(&payload[0]), payload.size()};
    task.attempt = attempt;
    return handle(&task, &output, &failure);
}

static void a_text_is_counted() {
    assert(handled("one two\nthree"));
    const std::string body(reinterpret_cast<const char *>(output.body.ptr), output.body.len);
    assert(body == R"({"lines":2,"words":3,"bytes":13})");
}

static void nothing_is_rejected() {
    assert(!handled(""));
    assert(failure.tag == SCUTWORK_TASK_TASK_TYPES_FAILURE_REJECT);
}

static void a_busy_service_is_tried_again() {
    assert(!handled("busy"));
    assert(failure.tag == SCUTWORK_TASK_TASK_TYPES_FAILURE_RETRY);
    assert(handled("busy", 3));
}

int main() {
    a_text_is_counted();
    nothing_is_rejected();
    a_busy_service_is_tried_again();
}
