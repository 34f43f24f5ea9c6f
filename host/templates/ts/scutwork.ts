// Maps a plain function to the contract: it takes a task and returns an output, or throws a Retry or a
// Reject. Any other exception is a bug: the host ends the plugin, shows the stack, and it counts as a retry.

/** It may work later. `delay` asks for a wait of that many milliseconds in place of the manifest's backoff. */
export class Retry extends Error {
  constructor(readonly code: string, message: string, readonly delay?: number) {
    super(message);
  }
}

/** It can never work. */
export class Reject extends Error {
  constructor(readonly code: string, message: string) {
    super(message);
  }
}

/** The result. */
export interface Output {
  contentType?: string;
  body: Uint8Array;
}

/** A task as the contract has it. */
export interface Fields {
  id: string;
  plugin: string;
  payload: Uint8Array;
  contentType?: string;
  headers: [string, string][];
  attempt: number;
  maxAttempts: number;
  timeoutMs: number;
}

/** What a handler is given. Tests make it with a payload alone. */
export class Task {
  readonly id: string;
  readonly plugin: string;
  readonly payload: Uint8Array;
  readonly contentType: string | undefined;
  readonly headers: Map<string, string>;
  readonly attempt: number;
  readonly maxAttempts: number;
  readonly timeoutMs: number;

  constructor(fields: Partial<Fields> = {}) {
    this.id = fields.id ?? "test";
    this.plugin = fields.plugin ?? "test";
    this.payload = fields.payload ?? new Uint8Array();
    this.contentType = fields.contentType;
    this.headers = new Map(fields.headers ?? []);
    this.attempt = fields.attempt ?? 1;
    this.maxAttempts = fields.maxAttempts ?? 5;
    this.timeoutMs = fields.timeoutMs ?? 300000;
  }

  /** The payload as text; rejects the task as `not-text`. */
  text(): string {
    try {
      return decode(this.payload);
    } catch (error) {
      throw new Reject("not-text", `the payload is no text: ${(error as Error).message}`);
    }
  }

  /** The payload as JSON; rejects the task as `bad-json`. */
  json(): unknown {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject("bad-json", `the payload is wrong: ${(error as Error).message}`);
    }
  }
}

/** The results that a handler returns. */
export const Output = {
  text: (text: string): Output => ({ contentType: "text/plain", body: encode(text) }),
  json: (value: unknown): Output => ({ contentType: "application/json", body: encode(JSON.stringify(value)) }),
  bytes: (contentType: string, body: Uint8Array): Output => ({ contentType, body }),
};

/** What the component exports, around a function from a task to an output. */
export function plugin(handle: (task: Task) => Output) {
  return {
    handle(task: Fields): Output {
      try {
        return handle(new Task(task));
      } catch (error) {
        if (error instanceof Retry) {
          throw { tag: "retry", val: { code: error.code, message: error.message, delay: error.delay } };
        }
        if (error instanceof Reject) {
          throw { tag: "reject", val: { code: error.code, message: error.message } };
        }
        throw error;
      }
    },
  };
}

/** UTF-8 to text. QuickJS has no TextDecoder; decodeURIComponent knows UTF-8 and refuses what is none. */
function decode(bytes: Uint8Array): string {
  let escaped = "";
  for (const byte of bytes) {
    escaped += "%" + byte.toString(16).padStart(2, "0");
  }
  return decodeURIComponent(escaped);
}

/** Text to UTF-8. */
function encode(text: string): Uint8Array {
  const escaped = encodeURIComponent(text);
  const bytes: number[] = [];
  for (let at = 0; at < escaped.length; at += 1) {
    if (escaped[at] === "%") {
      bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(escaped.charCodeAt(at));
    }
  }
  return new Uint8Array(bytes);
}
