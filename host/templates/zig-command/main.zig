//! Counts the lines, words and bytes of a text on stdin.

const std = @import("std");

/// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
const RETRY = 75;
const REJECT = 65;

const Counts = struct { lines: usize, words: usize, bytes: usize };

/// What becomes of the task: the output, or why there is none.
const Answer = union(enum) { done: Counts, retry: []const u8, reject: []const u8 };

pub fn main() !void {
    switch (handle(try payload(), attempt())) {
        .done => |counts| {
            const format = "{{\"lines\":{d},\"words\":{d},\"bytes\":{d}}}";
            var buffer: [96]u8 = undefined;
            say(1, try std.fmt.bufPrint(&buffer, format, counts));
        },
        .retry => |why| stop(RETRY, why),
        .reject => |why| stop(REJECT, why),
    }
}

fn handle(text: []const u8, attempted: u32) Answer {
    if (text.len == 0) return .{ .reject = "there is nothing to count" };
    if (std.mem.eql(u8, text, "busy") and attempted < 3) return .{ .retry = "pretends to be busy" };
    if (std.mem.eql(u8, text, "crash")) {
        say(2, "asked to crash");
        @trap();
    }
    var counts = Counts{ .lines = @intFromBool(text[text.len - 1] != '\n'), .words = 0, .bytes = text.len };
    var in_word = false;
    for (text) |byte| {
        const is_space = std.ascii.isWhitespace(byte);
        if (byte == '\n') counts.lines += 1;
        if (!is_space and !in_word) counts.words += 1;
        in_word = !is_space;
    }
    return .{ .done = counts };
}

const allocator = std.heap.wasm_allocator;

fn payload() ![]u8 {
    var text: []u8 = &.{};
    var buffer: [4096]u8 = undefined;
    while (true) {
        const size = try std.posix.read(0, &buffer);
        if (size == 0) return text;
        const begun = text.len;
        text = try allocator.realloc(text, begun + size);
        @memcpy(text[begun..], buffer[0..size]);
    }
}

fn attempt() u32 {
    const text = std.process.getEnvVarOwned(allocator, "SCUTWORK_ATTEMPT") catch return 1;
    return std.fmt.parseInt(u32, text, 10) catch 1;
}

fn say(file: std.posix.fd_t, text: []const u8) void {
    var rest = text;
    while (rest.len > 0) rest = rest[(std.posix.write(file, rest) catch return)..];
}

fn stop(code: u8, why: []const u8) noreturn {
    say(2, why);
    std.process.exit(code);
}

const expectEqual = std.testing.expectEqual;

test "a text is counted" {
    const counts = Counts{ .lines = 2, .words = 3, .bytes = 13 };
    try expectEqual(Answer{ .done = counts }, handle("one two\nthree", 1));
}

test "nothing is rejected" {
    try expectEqual(.reject, std.meta.activeTag(handle("", 1)));
}

test "a busy service is tried again" {
    try expectEqual(.retry, std.meta.activeTag(handle("busy", 1)));
    try expectEqual(.done, std.meta.activeTag(handle("busy", 3)));
}
