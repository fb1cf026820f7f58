// Values as a person reads them.

const DEPTH = 4;
const ITEMS = 100;
const LINE = 100;

/** Returns values in one line of text. The first may have %s, %d, %i, %f, %j, %o and %O for those that follow. */
export function format(...values) {
  let [first, ...rest] = values;
  if (typeof first === "string" && first.includes("%")) {
    first = first.replace(/%([sdifjoOc%])/g, (whole, form) => {
      if (form === "%") {
        return "%";
      }
      return rest.length === 0 ? whole : formatted(form, rest.shift());
    });
  } else if (values.length > 0) {
    first = plain(first);
  }
  return [first ?? "", ...rest.map(plain)].join(" ");
}

function plain(value) {
  return typeof value === "string" ? value : inspect(value);
}

function formatted(form, value) {
  switch (form) {
    case "s":
      return plain(value);
    case "d":
      return typeof value === "bigint" ? `${value}n` : String(Number(value));
    case "i":
      return String(Number.parseInt(value, 10));
    case "f":
      return String(Number.parseFloat(value));
    case "j":
      return JSON.stringify(value);
    case "c":
      return "";
    default:
      return inspect(value);
  }
}

/** Returns a value as text. */
export function inspect(value, depth = 0, seen = []) {
  switch (typeof value) {
    case "string":
      return depth === 0 ? value : JSON.stringify(value);
    case "bigint":
      return `${value}n`;
    case "symbol":
      return value.toString();
    case "function":
      return `[${/^class\b/.test(Function.prototype.toString.call(value)) ? "class" : "Function"} ${value.name || "(anonymous)"}]`;
    case "object":
      return value === null ? "null" : object(value, depth, seen);
    default:
      return Object.is(value, -0) ? "-0" : String(value);
  }
}

function object(value, depth, seen) {
  if (seen.includes(value)) {
    return "[Circular]";
  }
  if (value instanceof Error) {
    return value.stack ? `${value}\n${value.stack}`.trimEnd() : String(value);
  }
  if (value instanceof Date) {
    return Number.isNaN(value.getTime()) ? "Invalid Date" : value.toISOString();
  }
  if (value instanceof RegExp) {
    return String(value);
  }
  if (depth > DEPTH) {
    return Array.isArray(value) ? "[Array]" : `[${nameOf(value) || "Object"}]`;
  }
  const within = [...seen, value];
  const show = (each) => inspect(each, depth + 1, within);
  if (Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof DataView))) {
    return list(value, Array.isArray(value) ? "" : `${nameOf(value)}(${value.length}) `, show);
  }
  if (value instanceof Map) {
    return braces(`Map(${value.size}) `, [...value].map(([key, each]) => `${show(key)} => ${show(each)}`));
  }
  if (value instanceof Set) {
    return braces(`Set(${value.size}) `, [...value].map(show));
  }
  const name = nameOf(value);
  const shown = Object.keys(value).map((key) => `${/^[A-Za-z_$][\w$]*$/.test(key) ? key : JSON.stringify(key)}: ${show(value[key])}`);
  return braces(name && name !== "Object" ? `${name} ` : "", shown);
}

function nameOf(value) {
  return Object.getPrototypeOf(value) === null ? "[Object: null prototype]" : (value.constructor?.name ?? "");
}

function list(values, name, show) {
  const shown = Array.from(values).slice(0, ITEMS).map(show);
  if (values.length > ITEMS) {
    shown.push(`... ${values.length - ITEMS} more items`);
  }
  return shown.length === 0 ? `${name}[]` : `${name}${spread("[", shown, "]")}`;
}

function braces(name, shown) {
  return shown.length === 0 ? `${name}{}` : `${name}${spread("{", shown, "}")}`;
}

function spread(open, shown, close) {
  const short = `${open} ${shown.join(", ")} ${close}`;
  if (short.length <= LINE && !short.includes("\n")) {
    return short;
  }
  return `${open}\n${shown.map((each) => `  ${each.replaceAll("\n", "\n  ")}`).join(",\n")}\n${close}`;
}
