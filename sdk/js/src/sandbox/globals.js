// What JavaScript has outside of its language: console, text, timers, chance.

import native from "./native.js";
import { format, inspect } from "../inspect.js";
import { LEVELS } from "../log.js";
import { structuredClone } from "./clone.js";
import { clearTimeout, setImmediate, setInterval, setTimeout } from "./timers.js";
import { TextDecoder, TextEncoder } from "./text.js";
import { URL, URLSearchParams } from "./url.js";

function offer(values) {
  for (const [name, value] of Object.entries(values)) {
    Object.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  }
}

function line(level) {
  return (...values) => native.log(LEVELS[level], format(...values));
}

const counts = new Map();
const moments = new Map();

const console = {
  log: line("info"),
  info: line("info"),
  warn: line("warn"),
  error: line("error"),
  debug: line("debug"),
  trace: line("trace"),
  dir: (value) => native.log(LEVELS.info, inspect(value)),
  table: (value) => native.log(LEVELS.info, inspect(value)),
  group: line("info"),
  groupEnd() {},
  assert(condition, ...values) {
    if (!condition) {
      native.log(LEVELS.error, `Assertion failed${values.length ? ": " : ""}${format(...values)}`);
    }
  },
  count(label = "default") {
    counts.set(label, (counts.get(label) ?? 0) + 1);
    native.log(LEVELS.info, `${label}: ${counts.get(label)}`);
  },
  time(label = "default") {
    moments.set(label, native.monotonic());
  },
  timeEnd(label = "default") {
    native.log(LEVELS.info, `${label}: ${(native.monotonic() - moments.get(label)).toFixed(3)} ms`);
    moments.delete(label);
  },
};

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
const RANDOM_MAX = 65536;

const crypto = {
  getRandomValues(array) {
    if (!ArrayBuffer.isView(array) || array instanceof DataView || /Float/.test(array.constructor.name)) {
      throw new TypeError("getRandomValues takes an array of integers, such as a Uint8Array");
    }
    if (array.byteLength > RANDOM_MAX) {
      throw new DOMException(`getRandomValues fills at most ${RANDOM_MAX} bytes`, "QuotaExceededError");
    }
    new Uint8Array(array.buffer, array.byteOffset, array.byteLength).set(native.random(array.byteLength));
    return array;
  },
  randomUUID() {
    const bytes = native.random(16);
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    const text = Array.from(bytes, (byte) => HEX[byte]).join("");
    return [text.slice(0, 8), text.slice(8, 12), text.slice(12, 16), text.slice(16, 20), text.slice(20)].join("-");
  },
};

/** The time since the node has started, so that no snapshot keeps its start. */
const performance = {
  now: () => native.monotonic(),
  get timeOrigin() {
    return Date.now() - native.monotonic();
  },
};

offer({
  console,
  crypto,
  performance,
  process: { env: native.environment() },
  self: globalThis,
  setTimeout,
  setInterval,
  setImmediate,
  clearTimeout,
  clearInterval: clearTimeout,
  clearImmediate: clearTimeout,
  structuredClone,
  TextDecoder,
  TextEncoder,
  URL,
  URLSearchParams,
});
