import assert from "node:assert/strict";
import { test } from "node:test";

import { REJECT, RETRY, handle } from "./build/handler.js";

const handled = (payload, attempt = 1) => handle(new TextEncoder().encode(payload), attempt);

test("a text is counted", () => {
  const { code, text } = handled("one two\nthree");
  assert.equal(code, 0);
  assert.deepEqual(JSON.parse(text), { lines: 2, words: 3, bytes: 13 });
});

test("nothing is rejected", () => {
  assert.equal(handled("").code, REJECT.value);
});

test("a busy service is tried again", () => {
  assert.equal(handled("busy").code, RETRY.value);
  assert.equal(handled("busy", 3).code, 0);
});
