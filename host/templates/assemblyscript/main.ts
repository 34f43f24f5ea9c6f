// Counts the lines, words and bytes of a text on stdin.

// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
const RETRY = 75;
const REJECT = 65;

function payload(): Uint8Array {
  const all: u8[] = [];
  const buffer = new ArrayBuffer(4096);
  const view = Uint8Array.wrap(buffer);
  let size = process.stdin.read(buffer);
  while (size > 0) {
    for (let at = 0; at < size; at++) all.push(view[at]);
    size = process.stdin.read(buffer);
  }
  const bytes = new Uint8Array(all.length);
  for (let at = 0; at < all.length; at++) bytes[at] = all[at];
  return bytes;
}

function stop(code: i32, why: string): void {
  process.stderr.write(why + "\n");
  process.exit(code);
}

const bytes = payload();
const text = String.UTF8.decode(bytes.buffer);
const attempt = process.env.has("SCUTWORK_ATTEMPT") ? I32.parseInt(process.env.get("SCUTWORK_ATTEMPT")) : 1;

if (text == "") stop(REJECT, "there is nothing to count");
if (text == "busy" && attempt < 3) stop(RETRY, "pretends to be busy");
if (text == "crash") throw new Error("asked to crash");

let lines = 0;
let words = 0;
let inWord = false;
for (let at = 0; at < bytes.length; at++) {
  const isSpace = bytes[at] <= 32;
  if (bytes[at] == 10) lines++;
  if (!isSpace && !inWord) words++;
  inWord = !isSpace;
}
if (bytes[bytes.length - 1] != 10) lines++;
process.stdout.write(`{"lines":${lines},"words":${words},"bytes":${bytes.length}}`);
