/* The contract for C, C++ and Zig in short words: the plugin is a function `handle`, and these are what it is
 * given and gives back. plugin.h is wit/task.wit in C, made by wit-bindgen. */

#ifndef SCUTWORK_H
#define SCUTWORK_H

#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One piece of work, as this attempt sees it: `payload`, `headers`, `attempt` and more. Its texts have a length
 * and no 0 at their end. */
typedef scutwork_task_task_types_task_t Task;
typedef scutwork_task_task_types_output_t Output;
typedef scutwork_task_task_types_failure_t Failure;

/* The plugin, which is yours to write: true with an output, or false with a failure. */
bool handle(const Task *task, Output *output, Failure *failure);

/* The task is done. Copies `size` bytes of the body. */
bool done(Output *output, const char *content_type, const void *body, size_t size);

/* It may work later: it runs again after a while, up to retry.max_attempts. */
bool retry(Failure *failure, const char *code, const char *message);

/* The same after so many milliseconds, in place of the manifest's backoff. */
bool retry_after(Failure *failure, const char *code, const char *message, uint32_t delay);

/* It can never work: a dead letter at once. */
bool reject(Failure *failure, const char *code, const char *message);

/* The first header of this name, its length in `size`. NULL: there is none. */
const char *header(const Task *task, const char *name, size_t *size);

/* Whether the payload is this text. */
bool payload_is(const Task *task, const char *text);

/* Writes a line to the host's log. The level is a SCUTWORK_TASK_LOG_LEVEL_... */
void log_line(scutwork_task_log_level_t level, const char *message);

/* Says how far the task is, for people who watch. */
void progress(uint32_t done, uint32_t total, const char *message);

#ifdef __cplusplus
}
#endif

#endif
