// Functions that are tasks.

/** What `task` was told of each function. */
const tasks = new WeakMap();

/** Marks a function as a task. It stays that function: tests call it as it is. */
export function task(run, options = {}) {
  if (typeof run !== "function") {
    throw new TypeError("task() takes a function: task((item) => ...)");
  }
  if (tasks.has(run)) {
    throw new TypeError("this function is a task already: write one `export const NAME = task(...)` for each");
  }
  for (const name of Object.keys(options)) {
    if (!["init", "examples", "calls", "doc", "schema"].includes(name)) {
      throw new TypeError(`task() has no option \`${name}\`; it has init, examples, calls, doc and schema`);
    }
  }
  tasks.set(run, options);
  return run;
}

/** Returns what `task` was told of a function. `undefined` if it is no task. */
export function optionsOf(run) {
  return typeof run === "function" ? tasks.get(run) : undefined;
}

const NAME = /^[A-Za-z0-9_-]{1,64}$/;

/** Returns the tasks that a module exports, each with its name, function and options. */
export function tasksOf(namespace) {
  const found = [];
  for (const name of Object.keys(namespace)) {
    const options = optionsOf(namespace[name]);
    if (options === undefined) {
      continue;
    }
    if (name === "default" || !NAME.test(name)) {
      throw new TypeError(`the task \`${name}\` needs a name of its own: export const NAME = task(...), of letters, digits and _`);
    }
    found.push({ name, run: namespace[name], options });
  }
  return found;
}

const GENERATORS = ["GeneratorFunction", "AsyncGeneratorFunction"];

/** Returns what a plugin says of a task, as the plugin ABI wants it. `schemaOf` reads the schemas that its author gives. */
export function describe({ name, run, options }, schemaOf) {
  const kind = GENERATORS.includes(run.constructor.name) ? "generator" : "map";
  const described = { abi: 1, name, kind };
  if (options.doc) {
    described.doc = options.doc;
  }
  if (options.init) {
    described.state = options.init.name || "state";
  }
  if (options.calls?.length) {
    described.calls = options.calls;
  }
  const sides = Object.entries(options.schema ?? {}).filter(([, given]) => given !== undefined);
  for (const [side, given] of sides) {
    if (side !== "input" && side !== "output") {
      throw new TypeError(`the \`schema\` of the task \`${name}\` has no \`${side}\`; it has input and output`);
    }
    described.schema = { ...described.schema, [side]: schemaOf(given, side) };
  }
  return described;
}
