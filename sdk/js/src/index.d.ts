/** A level of the log. */
type Line = (...values: unknown[]) => void;

/** Writes lines to the log, each with its level. `%s` and its kin are as for `console.log`. */
export declare const log: { error: Line; warn: Line; info: Line; debug: Line; trace: Line };

/** What a stage's `config` may hold. */
export type Config = Record<string, any>;

/** What a task returns for an item: an output, `undefined` for none, or a generator for any number. */
export type Outputs = unknown | Generator<unknown> | AsyncGenerator<unknown>;

/** What a task may call of its node. */
export type Call = "http" | "kv" | "objects" | "publish" | "secrets";

export interface Options<State = undefined> {
  /** Makes the state that the task gets as its second argument, of the stage's `config`. Runs once. */
  init?: (config: any) => State | Promise<State>;
  /** Items that run before the first, so that it finds everything warm. They give no outputs. */
  examples?: unknown[];
  /** What the task calls. */
  calls?: Call[];
  /** What the task does. If left out, the comment above it. */
  doc?: string;
  /** What the task takes and gives: each a JSON Schema, or a schema of zod. A generator gives several of its `output`. */
  schema?: { input?: object | boolean; output?: object | boolean };
}

/**
 * Marks a function as a task: `export const clean = task((order: Order) => ...)`. The name of the export is the name of the task.
 *
 * It stays that function: tests call it as it is.
 */
export declare function task<Item, Output>(run: (item: Item) => Output, options?: Options): (item: Item) => Output;
export declare function task<Item, State, Output>(
  run: (item: Item, state: State) => Output,
  options: Options<State> & { init: (config: any) => State | Promise<State> },
): (item: Item, state: State) => Output;

/** The chain, the stage and the item. */
export interface Context {
  /** The name of the chain. */
  chain: string;
  /** The version of the chain, as its author wrote it. */
  version: string;
  /** The revision number of the version. */
  revision: number;
  /** The name of the stage. */
  stage: string;
  /** The topic of the item, if it has one. */
  topic?: string;
  /** The id of the item, the same at each attempt. */
  id: string;
  /** The number of the attempt, from 1. */
  attempt: number;
  /** The stage's `config`. Empty if it has none. */
  config: Config;
}

/** Returns the context of the item that is handled now. Outside of pcluster it is one of a test. */
export declare function context(): Context;

/** No attempt can succeed: the item becomes a dead letter at once. */
export declare class Permanent extends Error {}

/** Another attempt may succeed. `after` says how many seconds it waits, in place of the stage's back-off. */
export declare class Transient extends Error {
  constructor(message?: string, options?: { after?: number; cause?: unknown });
  after?: number;
}

/** The call of a node has failed. */
export declare class CallError extends Error {
  constructor(kind: CallError["kind"], message: string, options?: { transient?: boolean; after?: number });
  kind: "denied" | "invalid" | "not_found" | "timeout" | "too_large" | "unavailable" | "conflict";
  transient: boolean;
  after?: number;
}

/** A value with a tag of CBOR that JavaScript has no type for, such as a decimal fraction (4) or a UUID (37). */
export declare class Tag {
  constructor(tag: number | bigint, value: unknown);
  tag: number | bigint;
  value: any;
}

/** An output with another topic than its item. An empty topic stands for none. */
export declare class WithTopic<Value = unknown> {
  constructor(topic: string, value: Value);
  topic: string;
  value: Value;
}

/** The value of a header that the node fills in. `new Secret("token").bearer()` puts `Bearer ` in front. */
export declare class Secret {
  constructor(name: string);
  bearer(): Secret;
  after(prefix: string): Secret;
  basic(user: string): Secret;
}

type Data = string | Uint8Array;

/** The answer of a server. A status such as 404 is no error: see `throwForStatus`. */
export declare class Response {
  status: number;
  ok: boolean;
  body: Uint8Array;
  /** By names in lower case. Of a header that comes twice, both values, with a comma between. */
  headers: Record<string, string>;
  url: string;
  /** In seconds. */
  retryAfter?: number;
  text(): string;
  json(): any;
  /** Throws a `CallError` for a status from 400 on. One that may pass is tried again. */
  throwForStatus(): this;
}

export interface Request {
  headers?: Record<string, Data | Secret>;
  body?: Data;
  /** What is sent as JSON. */
  json?: unknown;
  /** Replaces the node's `Idempotency-Key`; `false` for none. */
  idempotency?: string | boolean;
  /** In seconds. */
  timeout?: number;
  redirects?: number;
}

type Send = (url: string | URL, options?: Request) => Response;

/** Requests to HTTP servers that the stage is granted. The task waits for each: nothing is to be awaited. */
export declare const http: {
  request(method: string, url: string | URL, options?: Request): Response;
  get: Send;
  head: Send;
  post: Send;
  put: Send;
  patch: Send;
  delete: Send;
};

export interface Entry {
  value: Uint8Array;
  revision: number;
  text(): string;
}

/** A KV bucket that the stage is granted. Entries that are written through it expire after `ttl` seconds. */
export declare class Bucket {
  constructor(name: string, options?: { ttl?: number });
  /** Returns an entry. `undefined` if there is none. */
  get(key: string): Entry | undefined;
  /** Writes an entry. Returns its revision. */
  put(key: string, value: Data): number;
  /** Writes an entry unless there is one. Returns its revision. */
  create(key: string, value: Data): number;
  /** Writes an entry if it still has this revision. Returns the new one. */
  update(key: string, value: Data, revision: number): number;
  /** Deletes an entry; with a revision, if it still has that. */
  delete(key: string, revision?: number): void;
  /** Yields the keys that begin with this prefix. */
  keys(prefix?: string): Generator<string>;
}

export interface Stored {
  name: string;
  /** The size of the whole object in bytes. */
  size: number;
  /** The digest of the whole object: `SHA-256=` and base64. */
  digest: string;
}

/** An object store that the stage is granted. */
export declare class Store {
  constructor(name: string);
  /** Returns an object, or its bytes from `from` on. `undefined` if there is none. */
  get(name: string, part?: { from?: number; length?: number }): (Stored & { data: Uint8Array }) | undefined;
  /** Writes an object. Readers see the one before until all of this one is stored. */
  put(name: string, data: Data): Stored;
  /** Yields the objects whose names begin with this prefix, without their bytes. */
  list(prefix?: string): Generator<Stored>;
}

/** Publishes a message and waits for nothing. Nobody may be there to receive it. */
export declare function publish(subject: string, payload?: Data, options?: { headers?: Record<string, string> }): void;

/** Publishes a message and waits until a stream has stored it. */
export declare function publishAndWait(
  subject: string,
  payload?: Data,
  options?: { headers?: Record<string, string> },
): { stream: string; sequence: number; duplicate: boolean };

/** Returns the value of a secret, where the manifest grants `"reveal"`. Keep it out of outputs, logs and errors. */
export declare function reveal(name: string): Uint8Array;
