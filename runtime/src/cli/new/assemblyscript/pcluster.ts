// The plugin ABI of pcluster, and as much of CBOR as tasks need. It is a part of this project: change it as you like.

@external("pcluster_v1", "emit")
declare function hostEmit(item: usize, size: u32): void;
@external("pcluster_v1", "fail")
declare function hostFail(reason: usize, length: u32): void;
@external("pcluster_v1", "log")
declare function hostLog(level: i32, line: usize, length: u32): void;
@external("pcluster_v1", "context_len")
declare function hostContextLength(): i32;
@external("pcluster_v1", "context_read")
declare function hostContextRead(to: usize): void;

/** The item is handled. If nothing was emitted, it is dropped. */
export const DONE: i32 = 0;
/** Another attempt may succeed. */
export const FAILED: i32 = 1;
/** No attempt can succeed. */
export const FATAL: i32 = 2;

// The types of values, as CBOR numbers them.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const LIST: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
/** The byte that ends a list or map of no length. */
const END: u8 = 0xff;

let item = new ArrayBuffer(0);

/** Takes memory for the item that the host hands over. */
export function pcluster_alloc(size: u32): usize {
  item = new ArrayBuffer(size);
  return changetype<usize>(item);
}

/** What the compiler calls when a check fails: the reason, and a trap. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const place = (file ? file : "?") + ":" + line.toString() + ":" + column.toString();
  fail((message ? message : "aborted") + " at " + place);
  unreachable();
}

/** Fails the item for good: `return fail("no price")`, or `fail("busy", FAILED)` to try again. */
export function fail(reason: string, status: i32 = FATAL): i32 {
  const bytes = String.UTF8.encode(reason);
  hostFail(changetype<usize>(bytes), bytes.byteLength);
  return status;
}

/** Writes a log line. The levels go from 1, an error, to 5, a trace. */
export function log(line: string, level: i32 = 3): void {
  const bytes = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/** Returns the `config` of the stage. It is an empty map if the stage has none. */
export function config(): Reader {
  const context = new ArrayBuffer(hostContextLength());
  hostContextRead(changetype<usize>(context));
  const found = Reader.of(context).field("config");
  if (found !== null && found.type() === MAP) return found;
  const none = new Uint8Array(1);
  none[0] = MAP << 5;
  return Reader.of(none.buffer);
}

/** A place in an item. */
export class Reader {
  constructor(
    private at: usize,
    private end: usize,
    /** The memory, which lives as long as this. */
    private owner: ArrayBuffer | null = null,
  ) {}

  /** Returns a reader of an item in memory of this plugin. */
  static of(bytes: ArrayBuffer): Reader {
    const start = changetype<usize>(bytes);
    return new Reader(start, start + bytes.byteLength, bytes);
  }

  /** Returns the type of the next value: 3 is a text, 5 a map. */
  type(): u8 {
    return this.byte(this.at) >> 5;
  }

  /** Takes a text. Null if the next value is none. */
  text(): string | null {
    if (this.type() !== TEXT) return null;
    if ((this.byte(this.at) & 31) === 31) return this.pieces();
    const length = <usize>this.head();
    this.reach(length);
    const text = String.UTF8.decodeUnsafe(this.at, length);
    this.at += length;
    return text;
  }

  /** Takes a whole number. Returns `otherwise` if the next value is none, or needs more than 64 bits. */
  integer(otherwise: i64): i64 {
    const type = this.type();
    if (type !== UNSIGNED && type !== NEGATIVE) return otherwise;
    const number = this.head();
    if (number > <u64>i64.MAX_VALUE) return otherwise;
    return type === UNSIGNED ? <i64>number : -1 - <i64>number;
  }

  /** Returns a reader of the value of a key. Null if this is no map, or the key is missing. */
  field(key: string): Reader | null {
    if (this.type() !== MAP) return null;
    const rest = new Reader(this.at, this.end, this.owner);
    let found: Reader | null = null;
    for (let left = rest.head(); rest.next(left); left--) {
      const isKey = rest.type() === TEXT && new Reader(rest.at, rest.end).text() === key;
      rest.skip();
      // Of equal keys the last counts.
      if (isKey) found = new Reader(rest.at, rest.end, this.owner);
      rest.skip();
    }
    return found;
  }

  /** Returns the text of a key. Null if it is missing or no text. */
  textOf(key: string): string | null {
    const found = this.field(key);
    return found === null ? null : found.text();
  }

  /** Returns the whole number of a key, or `otherwise` if it is missing or none. */
  integerOf(key: string, otherwise: i64): i64 {
    const found = this.field(key);
    return found === null ? otherwise : found.integer(otherwise);
  }

  /** Returns the texts of a map by their keys. Other keys and values are left out. */
  texts(): Map<string, string> {
    const all = new Map<string, string>();
    if (this.type() !== MAP) return all;
    const rest = new Reader(this.at, this.end, this.owner);
    for (let left = rest.head(); rest.next(left); left--) {
      const key = new Reader(rest.at, rest.end).text();
      rest.skip();
      const value = new Reader(rest.at, rest.end).text();
      rest.skip();
      if (key !== null && value !== null) all.set(key, value);
    }
    return all;
  }

  /** Passes over a value, with all that is in it. */
  skip(): void {
    const type = this.type();
    const isOpen = (this.byte(this.at) & 31) === 31;
    const length = this.head();
    if ((type === BYTES || type === TEXT) && !isOpen) {
      this.reach(<usize>length);
      this.at += <usize>length;
    } else if (type === TAG) {
      this.skip();
    } else if (isOpen || type === LIST || type === MAP) {
      for (let left = length; this.next(left); left--) {
        this.skip();
        if (type === MAP) this.skip();
      }
    }
  }

  /** Returns true if another value follows in a list or map with so many left, and takes its end otherwise. */
  private next(left: u64): bool {
    if (left <= <u64>u32.MAX_VALUE) return left > 0;
    if (this.byte(this.at) !== END) return true;
    this.at++;
    return false;
  }

  /** Takes a text in pieces. */
  private pieces(): string {
    let text = "";
    for (this.at++; this.byte(this.at) !== END; ) {
      const piece = this.text();
      text += piece === null ? "" : piece;
    }
    this.at++;
    return text;
  }

  /** Takes the head of a value. Returns its number, which is the greatest one if there is none. */
  private head(): u64 {
    const first = this.byte(this.at++) & 31;
    if (first < 24) return first;
    if (first === 31) return u64.MAX_VALUE;
    let number: u64 = 0;
    for (let bytes = 1 << (first - 24); bytes > 0; bytes--) number = (number << 8) | this.byte(this.at++);
    return number;
  }

  private byte(at: usize): u8 {
    if (at >= this.end) throw new Error("the item ends too early");
    return load<u8>(at);
  }

  private reach(length: usize): void {
    if (length > this.end - this.at) throw new Error("the item ends too early");
  }
}

/** Writes an item. */
export class Writer {
  private bytes: Uint8Array = new Uint8Array(64);
  private length: i32 = 0;

  /** Begins a map of this many entries: each a key and a value. */
  map(entries: u64): this {
    return this.head(MAP, entries);
  }

  /** Begins a list of this many values. */
  list(values: u64): this {
    return this.head(LIST, values);
  }

  text(text: string): this {
    const bytes = Uint8Array.wrap(String.UTF8.encode(text));
    this.head(TEXT, bytes.length);
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
    return this;
  }

  integer(number: i64): this {
    return number < 0 ? this.head(NEGATIVE, -1 - number) : this.head(UNSIGNED, number);
  }

  null(): this {
    return this.put(0xf6);
  }

  /** Emits what is written, as one item. */
  emit(): void {
    hostEmit(this.bytes.dataStart, this.length);
    this.length = 0;
  }

  private head(type: u8, number: u64): this {
    type <<= 5;
    if (number < 24) return this.put(type | <u8>number);
    if (number <= 0xff) return this.put(type | 24).big(number, 1);
    if (number <= 0xffff) return this.put(type | 25).big(number, 2);
    if (number <= 0xffffffff) return this.put(type | 26).big(number, 4);
    return this.put(type | 27).big(number, 8);
  }

  private big(number: u64, bytes: i32): this {
    while (bytes-- > 0) this.put(<u8>(number >> (8 * bytes)));
    return this;
  }

  private put(byte: u8): this {
    this.reserve(1);
    this.bytes[this.length++] = byte;
    return this;
  }

  private reserve(more: i32): void {
    if (this.length + more <= this.bytes.length) return;
    const wider = new Uint8Array(2 * (this.length + more));
    wider.set(this.bytes);
    this.bytes = wider;
  }
}
