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
