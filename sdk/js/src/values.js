// Values that JavaScript has no type for, and what stands for them in CBOR.

/** A value with a tag of CBOR that JavaScript has no type for, such as a decimal fraction (4) or a UUID (37). */
export class Tag {
  constructor(tag, value) {
    this.tag = tag;
    this.value = value;
  }
}

/** An output with another topic than its item. An empty topic stands for none. */
export class WithTopic {
  constructor(topic, value) {
    this.topic = topic;
    this.value = value;
  }
}

const TIME_TEXT = 0;
const TIME_NUMBER = 1;
const SELF_DESCRIBED = 55799;
const TIME = /^(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

/** The texts that times were read from. They may be finer than milliseconds, and have a zone. */
const texts = new WeakMap();

function timeOf(text) {
  if (typeof text !== "string") {
    throw new TypeError("a time that is not a text");
  }
  const parts = TIME.exec(text);
  if (parts === null) {
    throw new TypeError(/^\d{4}-\d\d-\d\d[Tt][\d:.]+$/.test(text) ? "a time without a time zone" : `\`${text}\` is not a time`);
  }
  const [, day, time, fraction = "", zone] = parts;
  const date = new Date(`${day}T${time}${fraction.slice(0, 4)}${zone.toUpperCase()}`);
  // `Date` takes February 30 for March 1 or 2.
  if (Number.isNaN(date.getTime()) || new Date(`${day}T00:00:00Z`).toISOString().slice(0, 10) !== day) {
    throw new TypeError(`\`${text}\` is not a time`);
  }
  texts.set(date, [date.getTime(), text]);
  return date;
}

function timeAt(seconds) {
  const date = new Date(Math.round(Number(seconds) * 1000));
  if ((typeof seconds !== "number" && typeof seconds !== "bigint") || Number.isNaN(date.getTime())) {
    throw new TypeError("seconds that are not a time");
  }
  if (date.getTime() / 1000 !== Number(seconds)) {
    throw new TypeError("a time finer than milliseconds");
  }
  return date;
}

/** Returns the value of a tag. */
export function tagged(tag, value) {
  switch (tag) {
    case TIME_TEXT:
      return timeOf(value);
    case TIME_NUMBER:
      return timeAt(value);
    case SELF_DESCRIBED:
      return value;
    default:
      return new Tag(tag, value);
  }
}

/** Returns the tag of a date: with the text that it was read from, if it is still that time. */
export function timeTag(date) {
  const millis = date.getTime();
  if (Number.isNaN(millis)) {
    throw new TypeError("a date that is no time");
  }
  const [since, text] = texts.get(date) ?? [];
  if (since === millis) {
    return new Tag(TIME_TEXT, text);
  }
  const year = date.getUTCFullYear();
  if (year < 0 || year > 9999) {
    throw new TypeError(`a date in the year ${year}, which has no form`);
  }
  return new Tag(TIME_TEXT, date.toISOString().replace(".000Z", "Z"));
}

const ADVICE = {
  Set: "write [...set]",
  Promise: "await it",
  Error: "write error.message",
  Function: "call it",
  RegExp: "write its `source`",
};

/** Returns what stands for an object that CBOR has no form of: a value, the object itself for its properties, or the pairs of a `Map`. */
export function standIn(object) {
  if (object instanceof Date) {
    return timeTag(object);
  }
  if (object instanceof Map) {
    return [...object];
  }
  if (typeof object === "object" && typeof object.toJSON === "function") {
    return object.toJSON();
  }
  if (Object.prototype.toString.call(object) === "[object Object]" && !isHidden(object)) {
    return object;
  }
  const name = kindOf(object);
  const advice = ADVICE[name] ?? (ArrayBuffer.isView(object) ? "write Array.from(it), or its bytes as a Uint8Array" : undefined);
  throw new TypeError(`a value of type ${name} cannot be an output${advice ? `; ${advice}` : ""}`);
}

/** Returns `true` for an object whose contents are not in its properties. */
function isHidden(object) {
  return object instanceof WithTopic || object instanceof WeakRef;
}

function kindOf(object) {
  if (typeof object === "function") {
    return "Function";
  }
  return object instanceof Error ? "Error" : (object.constructor?.name ?? "Object");
}
