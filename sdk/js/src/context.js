// What a task may know of its item and its stage.

/** Where the context comes from: the sandbox, the worker, or a test. */
export const source = { current: undefined };

/** Returns a whole context of what is known. */
export function contextOf(known = {}) {
  const context = { chain: "test", version: "test", revision: 1, stage: "test", id: "test", attempt: 1, ...known };
  context.config ??= {};
  return context;
}

/** Returns the context of the item that is handled now. Outside of pcluster it is one of a test. */
export function context() {
  return source.current === undefined ? contextOf() : source.current();
}
