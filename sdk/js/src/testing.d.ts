import type { Context } from "./index.js";

/** Runs a task on an item as a node does, with the state that its `init` makes of the `config`. Returns its outputs. */
export declare function run(task: (item: any, state?: any) => unknown, item: unknown, context?: Partial<Context>): Promise<any[]>;

/**
 * Answers the calls of tasks while something runs: `answer(name, request)` returns the response, or throws a `CallError`.
 *
 * Names, requests and responses are those of the plugin ABI, such as `kv.get` with `bucket` and `key`.
 */
export declare function calls<Result>(answer: (name: string, request: any) => any, act: () => Result): Promise<Awaited<Result>>;

/** Reads the one item in CBOR that takes up all bytes. */
export declare function read(bytes: Uint8Array): any;

/** Writes a value as one item in CBOR. */
export declare function write(value: unknown): Uint8Array;
