// Maps a plain function to the contract: it takes a task and returns an output, or throws a Retry or a
// Reject. Any other exception is a bug: the host ends the plugin, shows the stack, and it counts as a retry.
// Without a host, as in tests, `log` and `progress` print.

/** It may work later. `delay` asks for a wait of that many milliseconds in place of the manifest's backoff. */
export class Retry extends Error {
  /** @param {string} code @param {string} message @param {number} [delay] */
  constructor(code, message, delay) {
    super(message);
    this.code = code;
    this.delay = delay;
  }
}

/** It can never work. */
export class Reject extends Error {
  /** @param {string} code @param {string} message */
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/**
 * A task as the contract has it.
 * @typedef {object} Fields
 * @property {Uint8Array | string} payload
 * @property {[string, string][]} headers
 * @property {string} [contentType]
 * @property {string} id
 * @property {string} plugin
 * @property {number} attempt
 * @property {number} maxAttempts
 * @property {number} timeoutMs
 */

/** What a handler is given. Tests make it with a payload alone. */
export class Task {
  /** @param {Partial<Fields>} fields */
  constructor(fields = {}) {
    this.payload = typeof fields.payload === "string" ? encode(fields.payload) : (fields.payload ?? new Uint8Array());
    this.headers = new Map(fields.headers);
    this.contentType = fields.contentType;
    this.id = fields.id ?? "test";
    this.plugin = fields.plugin ?? "test";
    this.attempt = fields.attempt ?? 1;
    this.maxAttempts = fields.maxAttempts ?? 5;
    this.timeoutMs = fields.timeoutMs ?? 300000;
  }

  /** The payload as text; rejects the task as `not-text`. */
  text() {
    try {
      return decode(this.payload);
    } catch (error) {
      throw new Reject("not-text", `the payload is no text: ${error.message}`);
    }
  }

  /** The payload as JSON; rejects the task as `bad-json`. @returns {unknown} */
  json() {
    const text = this.text();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Reject("bad-json", `the payload is wrong: ${error.message}`);
    }
  }
}

/** @typedef {{ contentType?: string, body: Uint8Array }} Output */

/** The results that a handler returns. */
export const Output = {
  /** @param {string} text @returns {Output} */
  text: (text) => ({ contentType: "text/plain", body: encode(text) }),
  /** @param {unknown} value @returns {Output} */
  json: (value) => ({ contentType: "application/json", body: encode(JSON.stringify(value)) }),
  /** @param {string} contentType @param {Uint8Array} body @returns {Output} */
  bytes: (contentType, body) => ({ contentType, body }),
};

/** What the host does for a plugin. Undefined: there is none. */
let host;

/**
 * Writes a line to the host's log, with fields that can be searched for.
 * @param {"trace" | "debug" | "info" | "warn" | "error"} level
 * @param {string} message
 * @param {Record<string, unknown>} fields
 */
export function log(level, message, fields = {}) {
  if (!host) {
    console.error(`${level}: ${message}`, fields);
    return;
  }
  const named = Object.entries(fields).map(([name, value]) => [name, String(value)]);
  host.log.write(level, message, named);
}

/** Says how far the task is, for people who watch. @param {number} done @param {number} total */
export function progress(done, total, message = "") {
  if (!host) {
    console.error(`${done}/${total} ${message}`);
    return;
  }
  host.control.progress(done, total, message);
}

/** What the component exports, around a function from a task to an output. */
export function plugin(handle, imports) {
  host = imports;
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
