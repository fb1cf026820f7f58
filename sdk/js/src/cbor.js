// CBOR outside of the sandbox, with the meaning that the engine gives it.

import { standIn, Tag, tagged } from "./values.js";

const DEPTH = 128;
const OPEN = 31;
const BREAK = 0xff;

class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 0;
  }

  take(length) {
    if (length > this.bytes.length - this.at) {
      throw new Error("the data ends too early");
    }
    this.at += Number(length);
    return this.at - Number(length);
  }

  head() {
    const first = this.bytes[this.take(1)];
    const [major, info] = [first >> 5, first & 31];
    if (info < 24 || info === OPEN) {
      return { major, info, number: info === OPEN ? 0 : info };
    }
    switch (info) {
      case 24:
        return { major, info, number: this.view.getUint8(this.take(1)) };
      case 25:
        return { major, info, number: this.view.getUint16(this.take(2)) };
      case 26:
        return { major, info, number: this.view.getUint32(this.take(4)) };
      case 27:
        return { major, info, number: narrow(this.view.getBigUint64(this.take(8))) };
      default:
        throw new Error("not valid CBOR");
    }
  }

  isOver() {
    const isOver = this.bytes[this.at] === BREAK;
    this.at += isOver ? 1 : 0;
    return isOver;
  }

  string(head) {
    if (head.info !== OPEN) {
      const start = this.take(head.number);
      return this.bytes.slice(start, this.at);
    }
    const pieces = [];
    while (!this.isOver()) {
      const piece = this.head();
      if (piece.major !== head.major || piece.info === OPEN) {
        throw new Error("not valid CBOR");
      }
      pieces.push(...this.string(piece));
    }
    return Uint8Array.from(pieces);
  }

  claim(head) {
    if (head.number > this.bytes.length - this.at) {
      throw new Error("the data ends too early");
    }
  }

  *places(head) {
    this.claim(head);
    for (let left = head.number; head.info === OPEN ? !this.isOver() : left > 0; left--) {
      yield;
    }
  }

  value(depth = 0) {
    if (depth > DEPTH) {
      throw new Error("nested too deeply");
    }
    const head = this.head();
    switch (head.major) {
      case 2:
        return this.string(head);
      case 3:
        return textOf(this.string(head));
      case 4:
        return Array.from(this.places(head), () => this.value(depth + 1));
      case 5:
        return this.map(head, depth);
    }
    if (head.info === OPEN) {
      throw new Error("not valid CBOR");
    }
    switch (head.major) {
      case 0:
        return head.number;
      case 1:
        return narrow(-1n - BigInt(head.number));
      case 6:
        return this.tag(head.number, depth);
      default:
        return this.simple(head);
    }
  }

  map(head, depth) {
    const pairs = Array.from(this.places(head), () => [this.value(depth + 1), this.value(depth + 1)]);
    if (pairs.some(([key]) => Object.is(key, -0))) {
      throw new Error("-0 is a key, which JavaScript cannot hold");
    }
    return pairs.every(([key]) => typeof key === "string") ? Object.fromEntries(pairs) : new Map(pairs);
  }

  tag(number, depth) {
    if (number !== 2 && number !== 3) {
      return tagged(number, this.value(depth + 1));
    }
    const head = this.head();
    if (head.major !== 2) {
      throw new Error("a large integer that is not a byte string");
    }
    const digits = Array.from(this.string(head), (byte) => byte.toString(16).padStart(2, "0")).join("");
    const value = BigInt(`0x0${digits}`);
    return narrow(number === 3 ? -1n - value : value);
  }

  simple({ info, number }) {
    switch (info) {
      case 20:
      case 21:
        return info === 21;
      case 22:
      case 23:
        return null;
      case 25:
        return half(number);
      case 26:
        return this.view.getFloat32(this.at - 4);
      case 27:
        return this.view.getFloat64(this.at - 8);
      default:
        throw new Error("a simple value that JavaScript does not have");
    }
  }
}

function narrow(number) {
  return Number.isSafeInteger(Number(number)) ? Number(number) : number;
}

function half(bits) {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 0x3ff];
  let value = exponent === 0 ? fraction * 2 ** -24 : (1024 + fraction) * 2 ** (exponent - 25);
  if (exponent === 31) {
    value = fraction === 0 ? Number.POSITIVE_INFINITY : Number.NaN;
  }
  return bits >> 15 ? -value : value;
}

function textOf(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("a text that is not UTF-8");
  }
}

/** Reads the one item that takes up all bytes. */
export function read(bytes) {
  if (bytes.length === 0) {
    throw new Error("there is no data");
  }
  const reader = new Reader(bytes);
  const item = reader.value();
  if (reader.at !== bytes.length) {
    throw new Error("bytes follow it");
  }
  return item;
}

class Writer {
  constructor() {
    this.bytes = [];
  }

  head(major, number) {
    const size = number < 24 ? 0 : number <= 0xff ? 1 : number <= 0xffff ? 2 : number <= 0xffffffff ? 4 : 8;
    this.bytes.push((major << 5) | (size === 0 ? Number(number) : 24 + Math.log2(size)));
    for (let shift = BigInt(8 * size) - 8n; shift >= 0n; shift -= 8n) {
      this.bytes.push(Number((BigInt(number) >> shift) & 0xffn));
    }
  }

  string(major, bytes) {
    this.head(major, bytes.length);
    for (const byte of bytes) {
      this.bytes.push(byte);
    }
  }

  value(value, depth) {
    if (depth > DEPTH) {
      throw new TypeError("nested too deeply");
    }
    switch (typeof value) {
      case "string":
        return this.text(value);
      case "number":
        return this.number(value);
      case "bigint":
        return this.bigint(value);
      case "boolean":
        return this.bytes.push(value ? 0xf5 : 0xf4);
      case "undefined":
        throw new TypeError("undefined is no value; null is one");
      case "symbol":
        throw new TypeError("a symbol has no form");
      default:
        return value === null ? this.bytes.push(0xf6) : this.object(value, depth);
    }
  }

  text(text) {
    if (!text.isWellFormed()) {
      throw new TypeError("a text with half of a surrogate pair");
    }
    this.string(3, new TextEncoder().encode(text));
  }

  number(number) {
    if (Number.isSafeInteger(number) && !Object.is(number, -0)) {
      this.head(number < 0 ? 1 : 0, number < 0 ? -1 - number : number);
      return;
    }
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, number);
    this.bytes.push(0xfb, ...(Number.isNaN(number) ? [0x7f, 0xf8, 0, 0, 0, 0, 0, 0] : new Uint8Array(view.buffer)));
  }

  bigint(number) {
    const rest = number < 0n ? -1n - number : number;
    if (rest < 1n << 64n) {
      this.head(number < 0n ? 1 : 0, rest);
      return;
    }
    const digits = rest.toString(16);
    const pairs = digits.padStart(digits.length + (digits.length % 2), "0").match(/../g);
    this.head(6, number < 0n ? 3 : 2);
    this.string(2, pairs.map((pair) => Number.parseInt(pair, 16)));
  }

  object(object, depth) {
    const prototype = Object.getPrototypeOf(object);
    if (Array.isArray(object)) {
      this.head(4, object.length);
      for (const value of Array.from(object)) {
        this.value(value ?? null, depth + 1);
      }
    } else if (object instanceof Uint8Array || object instanceof ArrayBuffer) {
      this.string(2, new Uint8Array(object.buffer ?? object, object.byteOffset, object.byteLength));
    } else if (prototype === Tag.prototype) {
      this.tag(object, depth);
    } else if (prototype === Object.prototype || prototype === null) {
      this.properties(object, depth);
    } else {
      this.other(object, depth);
    }
  }

  properties(object, depth) {
    const pairs = Object.entries(object).filter(([, value]) => value !== undefined);
    this.head(5, pairs.length);
    for (const [name, value] of pairs) {
      this.text(name);
      this.value(value, depth + 1);
    }
  }

  tag({ tag, value }, depth) {
    const isNumber = (typeof tag === "bigint" || Number.isSafeInteger(tag)) && tag >= 0 && tag < 1n << 64n;
    if (!isNumber) {
      throw new TypeError("the number of a tag must be an integer from 0 to 2^64 - 1");
    }
    this.head(6, tag);
    this.value(value, depth + 1);
  }

  other(object, depth) {
    const stands = standIn(object);
    if (object instanceof Map) {
      this.head(5, stands.length);
      for (const [key, value] of stands) {
        this.value(key, depth + 1);
        this.value(value ?? null, depth + 1);
      }
    } else if (stands === object) {
      this.properties(object, depth);
    } else {
      this.value(stands, depth + 1);
    }
  }
}

/** Writes a value as one item. */
export function write(value) {
  const writer = new Writer();
  writer.value(value, 0);
  return Uint8Array.from(writer.bytes);
}
