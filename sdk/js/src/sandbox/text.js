// Text as bytes.

import native from "./native.js";

function bytesOf(input) {
  if (input === undefined) {
    return new Uint8Array();
  }
  return ArrayBuffer.isView(input) ? new Uint8Array(input.buffer, input.byteOffset, input.byteLength) : new Uint8Array(input);
}

export class TextEncoder {
  get encoding() {
    return "utf-8";
  }

  encode(text = "") {
    return native.encode(String(text));
  }

  encodeInto(text, target) {
    let [read, written] = [0, 0];
    for (const character of String(text)) {
      const bytes = native.encode(character);
      if (written + bytes.length > target.length) {
        break;
      }
      target.set(bytes, written);
      written += bytes.length;
      read += character.length;
    }
    return { read, written };
  }
}

const UTF_8 = ["utf-8", "utf8", "unicode-1-1-utf-8"];
const UTF_16 = ["utf-16le", "utf-16"];

export class TextDecoder {
  #kept = new Uint8Array();
  #isStarted = false;

  constructor(label = "utf-8", { fatal = false, ignoreBOM = false } = {}) {
    const encoding = [UTF_8, UTF_16].find((names) => names.includes(String(label).trim().toLowerCase()))?.[0];
    if (encoding === undefined) {
      throw new RangeError(`the sandbox decodes utf-8 and utf-16le, and not ${label}`);
    }
    Object.assign(this, { encoding, fatal: Boolean(fatal), ignoreBOM: Boolean(ignoreBOM) });
  }

  decode(input, { stream = false } = {}) {
    let bytes = bytesOf(input);
    if (this.#kept.length > 0) {
      const joined = new Uint8Array(this.#kept.length + bytes.length);
      joined.set(this.#kept);
      joined.set(bytes, this.#kept.length);
      bytes = joined;
    }
    const whole = stream ? this.#whole(bytes) : bytes.length;
    this.#kept = bytes.slice(whole);
    let text = this.#text(bytes.subarray(0, whole));
    if (!this.#isStarted && !this.ignoreBOM && text.startsWith("\ufeff")) {
      text = text.slice(1);
    }
    this.#isStarted = stream && (this.#isStarted || whole > 0);
    return text;
  }

  /** Returns how many bytes do not end within a character. */
  #whole(bytes) {
    if (this.encoding !== "utf-8") {
      return bytes.length & ~1;
    }
    for (let back = 1; back <= Math.min(3, bytes.length); back++) {
      const byte = bytes[bytes.length - back];
      if (byte >= 0xc0) {
        const size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
        return size > back ? bytes.length - back : bytes.length;
      }
      if (byte < 0x80) {
        break;
      }
    }
    return bytes.length;
  }

  #text(bytes) {
    if (this.encoding === "utf-8") {
      const text = native.decode(bytes, this.fatal);
      if (text === undefined) {
        throw new TypeError("the bytes are not UTF-8");
      }
      return text;
    }
    let text = "";
    for (let index = 0; index + 1 < bytes.length; index += 2) {
      text += String.fromCharCode(bytes[index] | (bytes[index + 1] << 8));
    }
    if (bytes.length % 2 === 1) {
      text += "\ufffd";
    }
    if (this.fatal && (bytes.length % 2 === 1 || !text.isWellFormed())) {
      throw new TypeError("the bytes are not UTF-16");
    }
    return text.toWellFormed();
  }
}
