//! Counts the lines, words and bytes of a text.

const std = @import("std");
const c = @cImport(@cInclude("scutwork.h"));

export fn handle(task: *const c.Task, output: *c.Output, failure: *c.Failure) bool {
    const payload = task.payload;
    const text: []const u8 = if (payload.len == 0) "" else payload.ptr[0..payload.len];
    if (text.len == 0) {
        // It can never work: a dead letter at once.
        return c.reject(failure, "empty", "there is nothing to count");
    }
    if (std.mem.eql(u8, text, "busy") and task.attempt < 3) {
        // It may work later: it runs again after a while, up to retry.max_attempts.
        return c.retry(failure, "busy", "pretends to be busy");
    }
    if (std.mem.eql(u8, text, "crash")) {
        // A bug: the host ends it, and it counts as a retry.
        _ = std.posix.write(2, "asked to crash\n") catch 0;
        @trap();
    }
    const counts = count(text);
    c.log_line(c.SCUTWORK_TASK_LOG_LEVEL_INFO, "counted");
    c.progress(1, 1, "counted");
    const format = "{{\"lines\":{d},\"words\":{d},\"bytes\":{d}}}";
    var buffer: [96]u8 = undefined;
    const json = std.fmt.bufPrint(&buffer, format, .{ counts.lines, counts.words, text.len }) catch @trap();
    return c.done(output, "application/json", json.ptr, json.len);
}

const Counts = struct { lines: usize, words: usize };

fn count(text: []const u8) Counts {
    var counts = Counts{ .lines = @intFromBool(text[text.len - 1] != '\n'), .words = 0 };
    var in_word = false;
    for (text) |byte| {
        const is_space = std.ascii.isWhitespace(byte);
        if (byte == '\n') counts.lines += 1;
        if (!is_space and !in_word) counts.words += 1;
        in_word = !is_space;
    }
    return counts;
}

const testing = std.testing;

/// What the handler said of a task with this payload.
const Handled = struct {
    is_done: bool,
    output: c.Output,
    failure: c.Failure,

    fn of(payload: []const u8, attempt: u32) Handled {
        var task = std.mem.zeroes(c.Task);
        task.payload = .{ .ptr = @constCast(payload.ptr), .len = payload.len };
        task.attempt = attempt;
        var handled: Handled = undefined;
        handled.is_done = handle(&task, &handled.output, &handled.failure);
        return handled;
    }
};

test "a text is counted" {
    const handled = Handled.of("one two\nthree", 1);
    try testing.expect(handled.is_done);
    const body = handled.output.body;
    try testing.expectEqualStrings("{\"lines\":2,\"words\":3,\"bytes\":13}", body.ptr[0..body.len]);
}

test "nothing is rejected" {
    const handled = Handled.of("", 1);
    try testing.expect(!handled.is_done);
    try testing.expectEqual(c.SCUTWORK_TASK_TASK_TYPES_FAILURE_REJECT, handled.failure.tag);
}

test "a busy service is tried again" {
    const handled = Handled.of("busy", 1);
    try testing.expect(!handled.is_done);
    try testing.expectEqual(c.SCUTWORK_TASK_TASK_TYPES_FAILURE_RETRY, handled.failure.tag);
    try testing.expect(Handled.of("busy", 3).is_done);
}
