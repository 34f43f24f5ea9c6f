/* The handler is a function, tested as any. */

#undef NDEBUG
#include <assert.h>
#include <string.h>

#include "../bindings/scutwork.h"

static Output output;
static Failure failure;

static bool handled(const char *payload, uint32_t attempt) {
    Task task = {.payload = {(uint8_t *)payload, strlen(payload)}, .attempt = attempt};
    return handle(&task, &output, &failure);
}

static void a_text_is_counted(void) {
    const char expected[] = "{\"lines\":2,\"words\":3,\"bytes\":13}";
    assert(handled("one two\nthree", 1));
    assert(output.body.len == strlen(expected) && memcmp(output.body.ptr, expected, output.body.len) == 0);
}

static void nothing_is_rejected(void) {
    assert(!handled("", 1));
    assert(failure.tag == SCUTWORK_TASK_TASK_TYPES_FAILURE_REJECT);
}

static void a_busy_service_is_tried_again(void) {
    assert(!handled("busy", 1));
    assert(failure.tag == SCUTWORK_TASK_TASK_TYPES_FAILURE_RETRY);
    assert(handled("busy", 3));
}

int main(void) {
    a_text_is_counted();
    nothing_is_rejected();
    a_busy_service_is_tried_again();
}
