// Deep copies of values.

function refuse(value) {
  const shown = typeof value === "function" ? `function ${value.name}` : Object.prototype.toString.call(value).slice(8, -1);
  throw new DOMException(`${shown} could not be cloned.`, "DataCloneError");
}

export function structuredClone(value, options = {}) {
  const copies = new Map();
  for (const buffer of options?.transfer ?? []) {
    copies.set(buffer, buffer.transfer());
  }
  return copy(value, copies);
}

function copy(value, copies) {
  if (typeof value === "function" || typeof value === "symbol") {
    refuse(value);
  }
  if (typeof value !== "object" || value === null) {
    return value;
  }
  if (copies.has(value)) {
    return copies.get(value);
  }
  const made = empty(value, copies);
  copies.set(value, made);
  if (value instanceof Map) {
    for (const [key, each] of [...value]) {
      made.set(copy(key, copies), copy(each, copies));
    }
  } else if (value instanceof Set) {
    for (const each of [...value]) {
      made.add(copy(each, copies));
    }
  } else if (value instanceof Error) {
    for (const name of ["stack", "cause"]) {
      if (Object.hasOwn(value, name)) {
        Object.defineProperty(made, name, { value: copy(value[name], copies), writable: true, configurable: true });
      }
    }
  } else if (Array.isArray(value) || Object.prototype.toString.call(value) === "[object Object]") {
    for (const name of Object.keys(value)) {
      Object.defineProperty(made, name, { value: copy(value[name], copies), writable: true, configurable: true, enumerable: true });
    }
  }
  return made;
}

const ERRORS = { EvalError, RangeError, ReferenceError, SyntaxError, TypeError, URIError };

/** Returns a value of the same type, without what lies in it. */
function empty(value, copies) {
  const type = Object.prototype.toString.call(value).slice(8, -1);
  switch (type) {
    case "Array":
      return new Array(value.length);
    case "Date":
      return new Date(value.getTime());
    case "RegExp":
      return new RegExp(value.source, value.flags);
    case "Map":
      return new Map();
    case "Set":
      return new Set();
    case "Boolean":
    case "Number":
    case "String":
    case "BigInt":
      return Object(value.valueOf());
    case "Error":
      return new (ERRORS[value.name] ?? Error)(value.message);
    case "ArrayBuffer":
      return value.slice(0);
    case "Object":
      return {};
    default:
      return ArrayBuffer.isView(value) ? view(value, copies) : refuse(value);
  }
}

function view(value, copies) {
  const buffer = copy(value.buffer, copies);
  const length = value instanceof DataView ? value.byteLength : value.length;
  return new globalThis[Object.prototype.toString.call(value).slice(8, -1)](buffer, value.byteOffset, length);
}
