// What a task reaches through its node, as far as its stage is granted: HTTP, KV buckets, object stores, subjects, secrets.
//
// A call returns its answer at once: the task is suspended meanwhile.

import { CallError } from "./errors.js";

/** Who answers: the node, or a test. */
export const caller = {
  answer(name) {
    throw new CallError("denied", `only the sandbox answers \`${name}\`; in a test, \`calls\` of pcluster/testing does`);
  },
};

/** Calls by name. What is `undefined` is left out. */
function call(name, request) {
  return caller.answer(name, Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined)));
}

/** Calls for something that may not be there. `undefined` if it is not. */
function callFor(name, request) {
  try {
    return call(name, request);
  } catch (error) {
    // Transient, if what it would be in is not there.
    if (error instanceof CallError && error.kind === "not_found" && !error.transient) {
      return undefined;
    }
    throw error;
  }
}

/** Yields what is listed, page after page. */
function* pages(name, part, nameOf, request) {
  let after;
  for (;;) {
    const answer = call(name, { ...request, after });
    yield* answer[part];
    if (!answer.more || answer[part].length === 0) {
      return;
    }
    after = nameOf(answer[part].at(-1));
  }
}

const millis = (seconds) => (seconds === undefined ? undefined : Math.round(seconds * 1000));
const text = (bytes) => new TextDecoder().decode(bytes);
const pairs = (headers) => (headers === undefined ? undefined : Object.entries(headers));

/** The value of a header that the node fills in. `new Secret("token").bearer()` puts `Bearer ` in front. */
export class Secret {
  constructor(name, how = {}) {
    Object.defineProperty(this, "value", { value: { secret: name, ...how } });
  }

  bearer() {
    return this.after("Bearer ");
  }

  after(prefix) {
    return new Secret(this.value.secret, { prefix });
  }

  basic(user) {
    return new Secret(this.value.secret, { basic: user });
  }
}

/** The answer of a server. A status such as 404 is no error: see `throwForStatus`. */
export class Response {
  constructor({ status, body = new Uint8Array(), headers = [], url = "", retry_after_ms: retryAfter }) {
    Object.assign(this, { status, ok: status >= 200 && status < 300, body, url, headers: {}, retryAfter: retryAfter && retryAfter / 1000 });
    for (const [name, value] of headers) {
      this.headers[name] = Object.hasOwn(this.headers, name) ? `${this.headers[name]}, ${text(value)}` : text(value);
    }
  }

  text() {
    return text(this.body);
  }

  json() {
    return JSON.parse(this.text());
  }

  /** Throws a `CallError` for a status from 400 on. One that may pass is tried again. */
  throwForStatus() {
    if (this.status < 400) {
      return this;
    }
    const isConflict = this.status === 409 || this.status === 412;
    const transient = isConflict || [408, 425, 429].includes(this.status) || this.status >= 500;
    const kind = isConflict ? "conflict" : transient ? "unavailable" : "invalid";
    throw new CallError(kind, `${this.url} answered ${this.status}`, { transient, after: this.retryAfter });
  }
}

function request(method, url, { headers, body, json, idempotency, timeout, redirects } = {}) {
  const fields = Object.entries(headers ?? {}).map(([name, value]) => [name, value instanceof Secret ? value.value : value]);
  if (json !== undefined && !fields.some(([name]) => name.toLowerCase() === "content-type")) {
    fields.push(["Content-Type", "application/json"]);
  }
  const answer = call("http", {
    url: String(url),
    method,
    headers: fields.length === 0 ? undefined : fields,
    body: json === undefined ? body : JSON.stringify(json),
    idempotency: idempotency === true ? undefined : idempotency,
    timeout_ms: millis(timeout),
    redirects,
  });
  return new Response({ url: String(url), ...answer });
}

const by = (method) => (url, options) => request(method, url, options);

/** Requests to HTTP servers. One that is not safe, such as a `POST`, carries the same `Idempotency-Key` at each attempt. */
export const http = {
  request,
  get: by("GET"),
  head: by("HEAD"),
  post: by("POST"),
  put: by("PUT"),
  patch: by("PATCH"),
  delete: by("DELETE"),
};

class Entry {
  constructor({ value, revision }) {
    this.value = value;
    this.revision = revision;
  }

  text() {
    return text(this.value);
  }
}

/** A KV bucket. Entries that are written through it expire after `ttl` seconds. */
export class Bucket {
  constructor(name, { ttl } = {}) {
    this.name = name;
    this.ttl = ttl;
  }

  get(key) {
    const answer = callFor("kv.get", { bucket: this.name, key });
    return answer && new Entry(answer);
  }

  put(key, value) {
    return this.#write("kv.put", { key, value });
  }

  create(key, value) {
    return this.#write("kv.create", { key, value });
  }

  update(key, value, revision) {
    return this.#write("kv.update", { key, value, revision });
  }

  delete(key, revision) {
    call("kv.delete", { bucket: this.name, key, revision });
  }

  keys(prefix) {
    return pages("kv.keys", "keys", (key) => key, { bucket: this.name, prefix });
  }

  #write(name, entry) {
    return call(name, { bucket: this.name, ...entry, ttl_ms: millis(this.ttl) }).revision;
  }
}

/** An object store. */
export class Store {
  constructor(name) {
    this.name = name;
  }

  /** Returns an object, or its bytes from `from` on. `undefined` if there is none. */
  get(name, { from, length } = {}) {
    const answer = callFor("objects.get", { store: this.name, name, from, length });
    return answer && { name, ...answer };
  }

  put(name, data) {
    return { name, ...call("objects.put", { store: this.name, name, data }) };
  }

  list(prefix) {
    return pages("objects.list", "objects", (each) => each.name, { store: this.name, prefix });
  }
}

/** Publishes a message and waits for nothing. */
export function publish(subject, payload = "", { headers } = {}) {
  call("publish", { subject, payload, headers: pairs(headers) });
}

/** Publishes a message and waits until a stream has stored it. */
export function publishAndWait(subject, payload = "", { headers } = {}) {
  return call("publish", { subject, payload, headers: pairs(headers), wait: true });
}

/** Returns the value of a secret, where the manifest grants `"reveal"`. Keep it out of outputs, logs and errors. */
export function reveal(name) {
  return call("secrets.get", { name }).value;
}
