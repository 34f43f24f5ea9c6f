#include "scutwork.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* plugin.c asks for an object that would tell a linker what the contract is; `plugin build` tells it itself. */
void __component_type_object_force_link_plugin(void);
void __component_type_object_force_link_plugin(void) {}

/* Nothing is freed: the host throws the whole instance away after one call. */
bool exports_scutwork_task_handler_handle(Task *task, Output *output, Failure *failure) {
    return handle(task, output, failure);
}

bool done(Output *output, const char *content_type, const void *body, size_t size) {
    memset(output, 0, sizeof *output);
    if (content_type) {
        output->content_type.is_some = true;
        plugin_string_dup(&output->content_type.val, content_type);
    }
    if (size > 0) {
        output->body.ptr = malloc(size);
        if (!output->body.ptr) abort();
        memcpy(output->body.ptr, body, size);
        output->body.len = size;
    }
    return true;
}

bool retry(Failure *failure, const char *code, const char *message) {
    memset(failure, 0, sizeof *failure);
    failure->tag = SCUTWORK_TASK_TASK_TYPES_FAILURE_RETRY;
    plugin_string_dup(&failure->val.retry.code, code);
    plugin_string_dup(&failure->val.retry.message, message);
    return false;
}

bool retry_after(Failure *failure, const char *code, const char *message, uint32_t delay) {
    retry(failure, code, message);
    failure->val.retry.delay.is_some = true;
    failure->val.retry.delay.val = delay;
    return false;
}

bool reject(Failure *failure, const char *code, const char *message) {
    memset(failure, 0, sizeof *failure);
    failure->tag = SCUTWORK_TASK_TASK_TYPES_FAILURE_REJECT;
    plugin_string_dup(&failure->val.reject.code, code);
    plugin_string_dup(&failure->val.reject.message, message);
    return false;
}

static bool is(const uint8_t *bytes, size_t size, const char *text) {
    return size == strlen(text) && (size == 0 || memcmp(bytes, text, size) == 0);
}

const char *header(const Task *task, const char *name, size_t *size) {
    for (size_t i = 0; i < task->headers.len; i++) {
        const plugin_tuple2_string_string_t *header = &task->headers.ptr[i];
        if (is(header->f0.ptr, header->f0.len, name)) {
            *size = header->f1.len;
            return (const char *)header->f1.ptr;
        }
    }
    return NULL;
}

bool payload_is(const Task *task, const char *text) {
    return is(task->payload.ptr, task->payload.len, text);
}

void log_line(scutwork_task_log_level_t level, const char *message) {
    plugin_string_t line;
    plugin_list_tuple2_string_string_t none = {0};
    plugin_string_set(&line, message);
    scutwork_task_log_write(level, &line, &none);
}

void progress(uint32_t done, uint32_t total, const char *message) {
    plugin_string_t word;
    plugin_string_set(&word, message);
    scutwork_task_control_progress(done, total, &word);
}

#ifndef __wasm__
/* Without a host, as in tests, what it would do is printed, and its functions of plugin.c are these. */

void scutwork_task_log_write(scutwork_task_log_level_t level, plugin_string_t *message,
                             plugin_list_tuple2_string_string_t *fields) {
    (void)level, (void)fields;
    fprintf(stderr, "log: %.*s\n", (int)message->len, (const char *)message->ptr);
}

void scutwork_task_control_progress(uint32_t done, uint32_t total, plugin_string_t *message) {
    fprintf(stderr, "%u/%u %.*s\n", done, total, (int)message->len, (const char *)message->ptr);
}

bool scutwork_task_control_is_cancelled(void) { return false; }

void plugin_string_set(plugin_string_t *string, const char *text) {
    string->ptr = (uint8_t *)text;
    string->len = strlen(text);
}

void plugin_string_dup(plugin_string_t *string, const char *text) {
    plugin_string_set(string, strdup(text));
}
#endif
