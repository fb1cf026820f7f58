// URLs: the parts of the standard that tasks need. Names of hosts must be ASCII.

import native from "./native.js";

const PORTS = { "http:": "80", "https:": "443", "ws:": "80", "wss:": "443", "ftp:": "21", "file:": "" };
const PARTS = /^([A-Za-z][A-Za-z0-9+.-]*:)?(?:\/\/([^/?#]*))?([^?#]*)(\?[^#]*)?(#.*)?$/s;

/** What stays as it is in each part, besides letters, digits and %. */
const KEPT = {
  path: /[!$&'()*+,\-./:;=@_~|[\]]/,
  query: /[!$&()*+,\-./:;=?@_~`{}|^[\]\\]/,
  hash: /[!#$&'()*+,\-./:;=?@_~{}|^[\]\\]/,
  user: /[!$&'()*+,\-._~]/,
  form: /[*\-._]/,
};

function encode(text, kept) {
  let out = "";
  for (const character of text) {
    if (/[A-Za-z0-9]/.test(character) || (character === "%" && kept !== KEPT.form) || kept.test(character)) {
      out += character;
    } else {
      out += Array.from(native.encode(character), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join("");
    }
  }
  return out;
}

function decode(text) {
  const bytes = native.encode(text);
  const out = [];
  for (let index = 0; index < bytes.length; index++) {
    const digits = bytes[index] === 0x25 ? String.fromCharCode(...bytes.subarray(index + 1, index + 3)) : "";
    if (/^[0-9A-Fa-f]{2}$/.test(digits)) {
      out.push(Number.parseInt(digits, 16));
      index += 2;
    } else {
      out.push(bytes[index]);
    }
  }
  return native.decode(Uint8Array.from(out), false);
}

/** Takes `.` and `..` out of a path. */
function tidy(path) {
  const out = [];
  const parts = path.split("/").slice(1);
  for (const [index, part] of parts.entries()) {
    const plain = part.replace(/%2e/gi, ".");
    const isLast = index === parts.length - 1;
    if (plain === "..") {
      out.pop();
    }
    if (plain !== "." && plain !== "..") {
      out.push(part);
    } else if (isLast) {
      out.push("");
    }
  }
  return `/${out.join("/")}`;
}

export class URLSearchParams {
  #pairs = [];
  #changed;

  constructor(init = "", changed = undefined) {
    this.#changed = changed;
    if (typeof init === "object" && init !== null) {
      const pairs = typeof init[Symbol.iterator] === "function" ? init : Object.entries(init);
      this.#pairs = Array.from(pairs, ([name, value]) => [String(name), String(value)]);
    } else {
      const read = (text) => decode(text.replaceAll("+", " "));
      const parts = String(init).replace(/^\?/, "").split("&").filter(Boolean);
      this.#pairs = parts.map((part) => {
        const [name, ...value] = part.split("=");
        return [read(name), read(value.join("="))];
      });
    }
  }

  #set(pairs) {
    this.#pairs = pairs;
    this.#changed?.(this.toString());
  }

  get size() {
    return this.#pairs.length;
  }

  append(name, value) {
    this.#set([...this.#pairs, [String(name), String(value)]]);
  }

  delete(name) {
    this.#set(this.#pairs.filter(([each]) => each !== name));
  }

  get(name) {
    return this.#pairs.find(([each]) => each === name)?.[1] ?? null;
  }

  getAll(name) {
    return this.#pairs.filter(([each]) => each === name).map(([, value]) => value);
  }

  has(name) {
    return this.#pairs.some(([each]) => each === name);
  }

  set(name, value) {
    const index = this.#pairs.findIndex(([each]) => each === name);
    if (index < 0) {
      this.append(name, value);
      return;
    }
    const pairs = this.#pairs.filter(([each], place) => each !== name || place === index);
    pairs[pairs.findIndex(([each]) => each === name)] = [name, String(value)];
    this.#set(pairs);
  }

  sort() {
    this.#set(this.#pairs.toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)));
  }

  forEach(run, self) {
    for (const [name, value] of this.#pairs) {
      run.call(self, value, name, this);
    }
  }

  keys() {
    return this.#pairs.map(([name]) => name).values();
  }

  values() {
    return this.#pairs.map(([, value]) => value).values();
  }

  entries() {
    return this.#pairs.map((pair) => [...pair]).values();
  }

  [Symbol.iterator]() {
    return this.entries();
  }

  toString() {
    const write = (text) => encode(text, KEPT.form).replaceAll("%20", "+");
    return this.#pairs.map(([name, value]) => `${write(name)}=${write(value)}`).join("&");
  }
}

export class URL {
  #searchParams;

  constructor(input, base) {
    const text = String(input).trim();
    const parts = PARTS.exec(text);
    const from = base === undefined ? undefined : new URL(base);
    if (parts === null || (parts[1] === undefined && from === undefined)) {
      throw new TypeError(`Invalid URL: ${text}`);
    }
    const [, scheme, authority, path, query = "", hash = ""] = parts;
    this.protocol = (scheme ?? from.protocol).toLowerCase();
    this.hash = hash.length > 1 ? `#${encode(hash.slice(1), KEPT.hash)}` : "";
    if (authority !== undefined || scheme !== undefined) {
      this.#setAuthority(authority ?? "", text);
      this.pathname = this.#isSpecial() ? tidy(encode(`/${path.replaceAll("\\", "/").replace(/^\//, "")}`, KEPT.path)) : path;
    } else {
      for (const name of ["username", "password", "hostname", "port"]) {
        this[name] = from[name];
      }
      const folder = from.pathname.slice(0, from.pathname.lastIndexOf("/") + 1);
      this.pathname = path === "" ? from.pathname : tidy(encode(path.startsWith("/") ? path : folder + path, KEPT.path));
    }
    const kept = path === "" && query === "" && authority === undefined && scheme === undefined ? from.search : query;
    this.search = kept.length > 1 ? `?${encode(kept.slice(1), KEPT.query)}` : "";
  }

  #isSpecial() {
    return this.protocol in PORTS;
  }

  #setAuthority(authority, text) {
    const at = authority.lastIndexOf("@");
    const [user = "", ...password] = at < 0 ? [] : authority.slice(0, at).split(":");
    const host = /^(\[[0-9A-Fa-f:.]+\]|[^:]*)(?::(\d*))?$/.exec(authority.slice(at + 1));
    const name = host === null ? "" : this.#isSpecial() ? decode(host[1]).toLowerCase() : host[1];
    const port = host?.[2] ?? "";
    const isMissing = name === "" && this.#isSpecial() && this.protocol !== "file:";
    if (host === null || isMissing || /[\s<>^|%\\/?#@]/.test(name) || [...name].some((each) => each > "\x7f") || Number(port) > 65535) {
      throw new TypeError(`Invalid URL: ${text}`);
    }
    this.username = encode(user, KEPT.user);
    this.password = encode(password.join(":"), KEPT.user);
    this.hostname = name;
    this.port = port === "" || port === PORTS[this.protocol] ? "" : String(Number(port));
  }

  static canParse(input, base) {
    return URL.parse(input, base) !== null;
  }

  static parse(input, base) {
    try {
      return new URL(input, base);
    } catch {
      return null;
    }
  }

  get host() {
    return this.port === "" ? this.hostname : `${this.hostname}:${this.port}`;
  }

  get origin() {
    return this.#isSpecial() && this.protocol !== "file:" ? `${this.protocol}//${this.host}` : "null";
  }

  get searchParams() {
    this.#searchParams ??= new URLSearchParams(this.search, (query) => {
      this.search = query === "" ? "" : `?${query}`;
    });
    return this.#searchParams;
  }

  get href() {
    const user = this.username + (this.password === "" ? "" : `:${this.password}`);
    const slashes = this.#isSpecial() || this.hostname !== "" ? "//" : "";
    return `${this.protocol}${slashes}${user === "" ? "" : `${user}@`}${this.host}${this.pathname}${this.search}${this.hash}`;
  }

  toString() {
    return this.href;
  }

  toJSON() {
    return this.href;
  }
}
