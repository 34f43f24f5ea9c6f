import assert from "node:assert/strict";
import { test } from "node:test";

import { handle } from "./handler.js";
import { Reject, Retry, Task } from "./scutwork.js";

test("a text is counted", () => {
  const { body } = handle(new Task({ payload: "one two\nthree" }));
  assert.deepEqual(JSON.parse(new TextDecoder().decode(body)), { lines: 2, words: 3, bytes: 13 });
});

test("nothing is rejected", () => {
  assert.throws(() => handle(new Task()), Reject);
});

test("a busy service is tried again", () => {
  assert.throws(() => handle(new Task({ payload: "busy" })), Retry);
  handle(new Task({ payload: "busy", attempt: 3 }));
});
