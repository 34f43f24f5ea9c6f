// Counts the lines, words and bytes of a text.

// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
export const RETRY: i32 = 75;
export const REJECT: i32 = 65;

/** An exit code, and the output or why there is none. */
class Answer {
  code: i32 = 0;
  text: string = "";
}

export function handle(payload: Uint8Array, attempt: i32): Answer {
  const text = String.UTF8.decode(payload.buffer);
  if (text == "") return { code: REJECT, text: "there is nothing to count" };
  if (text == "busy" && attempt < 3) return { code: RETRY, text: "pretends to be busy" };
  if (text == "crash") throw new Error("asked to crash");

  let lines = 0;
  let words = 0;
  let inWord = false;
  for (let at = 0; at < payload.length; at++) {
    const isSpace = payload[at] <= 32;
    if (payload[at] == 10) lines++;
    if (!isSpace && !inWord) words++;
    inWord = !isSpace;
  }
  if (payload[payload.length - 1] != 10) lines++;
  return { code: 0, text: `{"lines":${lines},"words":${words},"bytes":${payload.length}}` };
}
