// Counts the lines, words and bytes of a text.

import { Output, Reject, Retry, log, progress } from "./scutwork.js";

export function handle(task) {
  // Rejects what is no text. `task.json()` reads JSON in the same way.
  const text = task.text();
  if (text === "") {
    // It can never work: a dead letter at once.
    throw new Reject("empty", "there is nothing to count");
  }
  if (text === "busy" && task.attempt < 3) {
    // It may work later: it runs again after a while, up to retry.max_attempts.
    throw new Retry("busy", "pretends to be busy");
  }
  if (text === "crash") {
    // A bug: the host ends it, and it counts as a retry.
    throw new Error("asked to crash");
  }
  const counts = {
    lines: text.replace(/\n$/, "").split("\n").length,
    words: text.split(/\s+/).filter((word) => word !== "").length,
    bytes: task.payload.length,
  };
  log("info", "counted", { words: counts.words });
  progress(1, 1, "counted");
  return Output.json(counts);
}
