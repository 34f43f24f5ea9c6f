// The command around the handler: the payload on stdin, the outcome as exit code.

import { handle } from "./handler";

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

const attempt = process.env.has("SCUTWORK_ATTEMPT") ? I32.parseInt(process.env.get("SCUTWORK_ATTEMPT")) : 1;
const answer = handle(payload(), attempt);
if (answer.code == 0) {
  process.stdout.write(answer.text);
} else {
  process.stderr.write(answer.text + "\n");
  process.exit(answer.code);
}
