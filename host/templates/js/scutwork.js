// Maps a plain function to the contract: it takes a task and returns an output, or throws a Retry or a
// Reject. Any other exception is a bug: the host ends the plugin, shows the stack, and it counts as a retry.

/** It may work later. `delay` asks for a wait of that many milliseconds in place of the manifest's backoff. */
export class Retry extends Error {
  constructor(code, message, delay = undefined) {
    super(message);
    this.code = code;
    this.delay = delay;
  }
}

/** It can never work. */
export class Reject extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** What a handler is given. Tests make it with a payload alone. */
export class Task {
  constructor(fields = {}) {
    Object.assign(this, { id: "test", plugin: "test", attempt: 1, maxAttempts: 5, timeoutMs: 300000 }, fields);
    this.payload = typeof fields.payload === "string" ? encode(fields.payload) : (fields.payload ?? new Uint8Array());
    this.headers = new Map(fields.headers ?? []);
  }

  /** The payload as text; rejects the task as `not-text`. */
  text() {
    try {
      return decode(this.payload);
    } catch (error) {
      throw new Reject("not-text", `the payload is no text: ${error.message}`);
    }
  }

  /** The payload as JSON; rejects the task as `bad-json`. */
  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject("bad-json", `the payload is wrong: ${error.message}`);
    }
  }
}

/** The results that a handler returns. */
export const Output = {
  text: (text) => ({ contentType: "text/plain", body: encode(text) }),
  json: (value) => ({ contentType: "application/json", body: encode(JSON.stringify(value)) }),
  bytes: (contentType, body) => ({ contentType, body }),
};

/** What the component exports, around a function from a task to an output. */
export function plugin(handle) {
  return {
    handle(task) {
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
function decode(bytes) {
  let escaped = "";
  for (const byte of bytes) {
    escaped += "%" + byte.toString(16).padStart(2, "0");
  }
  return decodeURIComponent(escaped);
}

/** Text to UTF-8. */
function encode(text) {
  const escaped = encodeURIComponent(text);
  const bytes = [];
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
