import type { Context } from "./index.js";

/** Runs a task on an item as a node does, with the state that its `init` makes of the `config`. Returns its outputs. */
export declare function run(task: (item: any, state?: any) => unknown, item: unknown, context?: Partial<Context>): Promise<any[]>;

/** Reads the one item in CBOR that takes up all bytes. */
export declare function read(bytes: Uint8Array): any;

/** Writes a value as one item in CBOR. */
export declare function write(value: unknown): Uint8Array;
