// JSON Schemas of what a task takes and gives: written by hand, of zod, or of another library that offers them.

/** Zod schemas can be within others that deep. */
const DEPTH = 64;
/** The checks of zod 4, and of zod 3, each with the keyword that says the same. */
const CHECKS = {
  min_length: (check) => ({ minLength: check.minimum }),
  max_length: (check) => ({ maxLength: check.maximum }),
  length_equals: (check) => ({ minLength: check.length, maxLength: check.length }),
  min_size: () => ({}),
  greater_than: (check) => ({ [check.inclusive ? "minimum" : "exclusiveMinimum"]: check.value }),
  less_than: (check) => ({ [check.inclusive ? "maximum" : "exclusiveMaximum"]: check.value }),
  multiple_of: (check) => ({ multipleOf: check.value }),
  number_format: (check) => (/int/.test(check.format) ? { type: "integer" } : {}),
  string_format: (check) => (check.format === "regex" ? pattern(check.pattern) : {}),
  int: () => ({ type: "integer" }),
  multipleOf: (check) => ({ multipleOf: check.value }),
  regex: (check) => pattern(check.regex),
  length: (check) => ({ minLength: check.value, maxLength: check.value }),
  ...Object.fromEntries(["overwrite", "trim", "toLowerCase", "toUpperCase", "finite"].map((name) => [name, () => ({})])),
};
/** What is said besides of what a task gives, which must not be less than the truth. */
const GIVEN = {
  number_format: ({ format }) => INTEGERS[format],
  string_format: (check) => (FORMATS.includes(check.format) ? format(check.format) : pattern(check.pattern)),
  ...Object.fromEntries(["email", "url"].map((name) => [name, () => format(name)])),
};
/** Formats of texts that pcluster knows, and that nothing but a text has. */
const FORMATS = ["email", "url", "ipv4", "ipv6"];
/** The bounds of integers of zod 4. */
const INTEGERS = {
  int32: { minimum: -(2 ** 31), maximum: 2 ** 31 - 1 },
  uint32: { minimum: 0, maximum: 2 ** 32 - 1 },
  safeint: { minimum: Number.MIN_SAFE_INTEGER, maximum: Number.MAX_SAFE_INTEGER },
  float32: { minimum: -3.4028234663852886e38, maximum: 3.4028234663852886e38 },
  float64: {},
};
/** What is said of a check that no keyword says. */
const REFINED = { "x-untold": "a refinement" };

function pattern(expression) {
  return expression instanceof RegExp && expression.flags.replace("u", "") === "" ? { pattern: expression.source } : {};
}

function format(name) {
  return { format: name === "url" ? "uri" : name };
}

/** Returns the JSON Schema that an author gives. `side` is `input` or `output`. */
export function schemaOf(given, side) {
  if (typeof given === "boolean") {
    return given;
  }
  if (typeof given !== "object" && typeof given !== "function" || given === null || Array.isArray(given)) {
    throw new TypeError(`the schema of a task's ${side} is a JSON Schema or a schema of zod, not ${JSON.stringify(given)}`);
  }
  if (definitionOf(given) !== undefined) {
    return new Walk(side).document(given);
  }
  const offered = given["~standard"]?.jsonSchema?.[side];
  if (typeof offered === "function") {
    return offered({ target: "draft-2020-12" });
  }
  if (given["~standard"] !== undefined || typeof given === "function") {
    const what = `the schema of a task's ${side}`;
    throw new TypeError(`${what} is of a library that offers no JSON Schema; write it by hand, or use zod`);
  }
  return given;
}

/** Returns the kind of a schema of zod 3 or 4, and what it is made of. `undefined` if it is none. */
function definitionOf(schema) {
  if (typeof schema?._zod?.def?.type === "string") {
    return [schema._zod.def.type, schema._zod.def];
  }
  const name = schema?._def?.typeName;
  return typeof name === "string" ? [name.replace(/^Zod/, "").replace(/^./, (first) => first.toLowerCase()), schema._def] : undefined;
}

class Walk {
  /** Schemas that are being read, and the name of each that refers to itself. */
  #open = new Map();
  #named = {};

  constructor(side) {
    this.side = side;
  }

  document(schema) {
    const root = this.read(schema);
    return Object.keys(this.#named).length === 0 ? root : { ...root, $defs: this.#named };
  }

  /** Returns what is not said: for what a task takes, any value; for what it gives, nobody knows. */
  untold(why) {
    return this.side === "input" ? {} : { "x-untold": why };
  }

  /** Returns the JSON Schema of a schema of zod. */
  read(schema) {
    const found = definitionOf(schema);
    if (found === undefined || this.#open.size > DEPTH) {
      return this.untold("a schema that is not of zod");
    }
    if (this.#open.has(schema)) {
      const name = this.#open.get(schema) ?? `schema${this.#count()}`;
      this.#open.set(schema, name);
      return { $ref: `#/$defs/${name}` };
    }
    this.#open.set(schema, undefined);
    const [kind, definition] = found;
    const read = this.side === "input" && definition.coerce ? {} : this.refined(this.kind(kind, definition), kind, definition);
    const name = this.#open.get(schema);
    this.#open.delete(schema);
    if (name === undefined) {
      return read;
    }
    this.#named[name] = read;
    return { $ref: `#/$defs/${name}` };
  }

  #count() {
    return Object.keys(this.#named).length + [...this.#open.values()].filter((name) => name !== undefined).length + 1;
  }

  /** Adds what is not said of the checks of a schema whose kind has no keywords for them. */
  refined(read, kind, definition) {
    const isOpen = this.side === "output" && !["string", "number", "array"].includes(kind) && definition.checks?.length > 0;
    return isOpen ? { ...read, ...REFINED } : read;
  }

  kind(kind, definition) {
    const inner = definition.innerType ?? definition.schema;
    switch (kind) {
      case "string":
        return checked({ type: "string" }, definition, this.side, "Length");
      case "number":
        return checked({ type: "number" }, definition, this.side);
      case "bigint":
      case "bigInt":
      case "int":
        return { type: "integer" };
      case "nan":
      case "naN":
      case "any":
      case "unknown":
        return this.untold(kind);
      case "boolean":
      case "null":
        return { type: kind };
      case "undefined":
      case "void":
      case "never":
        return { not: {} };
      case "date":
        return { type: "string", format: "date-time" };
      case "literal":
        return constants(definition.values ?? [definition.value]);
      case "enum":
      case "nativeEnum":
        return constants(members(definition.entries ?? definition.values));
      case "array":
        return checked({ type: "array", items: this.read(definition.element ?? definition.type) }, definition, this.side, "Items");
      case "tuple":
        return this.tuple(definition);
      case "object":
        return this.object(definition);
      case "record":
        return { type: "object", additionalProperties: this.read(definition.valueType), ...this.untold("which keys it has") };
      case "union":
      case "discriminatedUnion":
        return { anyOf: [...(definition.options.values?.() ?? definition.options)].map((each) => this.read(each)) };
      case "intersection":
        return this.side === "input" ? { allOf: [this.read(definition.left), this.read(definition.right)] } : this.untold(kind);
      case "nullable":
        return { anyOf: [this.read(inner), { type: "null" }] };
      case "optional":
      case "nonoptional":
      case "readonly":
        return this.read(inner);
      case "default":
      case "prefault":
        return this.read(inner);
      case "branded":
        return this.read(definition.type);
      case "lazy":
        return this.read(definition.getter());
      case "pipe":
      case "pipeline":
        return this.read(this.side === "input" ? definition.in : definition.out);
      case "effects":
        return this.effects(definition);
      case "catch":
        return this.side === "input" ? {} : this.read(inner);
      default:
        return this.untold(kind);
    }
  }

  /** Reads what zod 3 does beside: a refinement leaves the type, others change it on one side. */
  effects({ schema, effect }) {
    const changed = { input: "preprocess", output: "transform" }[this.side];
    const isOpen = this.side === "output" && effect.type === "refinement";
    return effect.type === changed ? this.untold(effect.type) : { ...this.read(schema), ...(isOpen ? REFINED : {}) };
  }

  tuple({ items, rest }) {
    const required = items.filter((each) => !this.isOptional(each)).length;
    const others = rest ? this.read(rest) : false;
    return { type: "array", prefixItems: items.map((each) => this.read(each)), items: others, minItems: required };
  }

  object(definition) {
    const shape = typeof definition.shape === "function" ? definition.shape() : definition.shape;
    const names = Object.keys(shape);
    const properties = Object.fromEntries(names.map((name) => [name, this.read(shape[name])]));
    const read = { type: "object", properties, required: names.filter((name) => !this.isOptional(shape[name])) };
    const kind = definitionOf(definition.catchall)?.[0];
    if (definition.unknownKeys === "strict" || (kind === "never" && definition.unknownKeys === undefined)) {
      read.additionalProperties = false;
    } else if (definition.unknownKeys === "passthrough" || (kind !== undefined && kind !== "never")) {
      read.additionalProperties = definition.unknownKeys === "passthrough" ? this.untold("passthrough") : this.read(definition.catchall);
    }
    return read;
  }

  /** Returns `true` if a property of this schema may be left out. */
  isOptional(schema, depth = 0) {
    const [kind, definition] = definitionOf(schema) ?? [];
    const inner = (each) => depth < DEPTH && this.isOptional(each, depth + 1);
    switch (kind) {
      case "optional":
      case "undefined":
      case "void":
        return true;
      case "any":
      case "unknown":
      case "transform":
      case "custom":
      case "default":
      case "prefault":
      case "catch":
        return this.side === "input";
      case "nullable":
      case "readonly":
        return inner(definition.innerType);
      case "branded":
        return inner(definition.type);
      case "lazy":
        return inner(definition.getter());
      case "union":
      case "discriminatedUnion":
        return [...(definition.options.values?.() ?? definition.options)].some(inner);
      case "pipe":
      case "pipeline":
        return inner(this.side === "input" ? definition.in : definition.out);
      case "effects":
        return inner(definition.schema) || (this.side === "input" && definition.effect.type === "preprocess");
      default:
        return this.side === "input" && definition?.coerce === true;
    }
  }
}

/** Adds to a schema what the checks of zod say. `unit` ends the keywords of a length. */
function checked(schema, definition, side, unit = "") {
  // Zod 4 has a format of a whole schema beside the checks, as for `z.int()`.
  const own = definition.check === undefined ? [] : [definition];
  const read = { ...schema };
  for (const check of [...own, ...(definition.checks ?? [])]) {
    const { kind, ...rest } = check._zod?.def ?? check;
    const name = rest.check ?? kind;
    const said = name === "min" || name === "max" ? bound(name, rest, unit) : lengths(CHECKS[name]?.(rest) ?? {}, unit);
    Object.assign(read, said);
    if (side === "output") {
      const more = GIVEN[name]?.(rest) ?? {};
      const isSaid = Object.keys({ ...said, ...more }).length > 0 || (name in CHECKS && name !== "string_format" && name !== "regex");
      Object.assign(read, { ...more, ...read }, isSaid ? {} : REFINED);
    }
  }
  for (const [key, name] of [["minLength", "min"], ["maxLength", "max"], ["exactLength", ""]]) {
    // Zod 3 keeps the lengths of an array apart.
    const value = unit === "Items" ? definition[key]?.value : undefined;
    if (value !== undefined) {
      Object.assign(read, name === "" ? { minItems: value, maxItems: value } : { [`${name}Items`]: value });
    }
  }
  return read;
}

function bound(name, { value, inclusive }, unit) {
  if (unit !== "") {
    return { [`${name}${unit}`]: value };
  }
  return { [inclusive ? `${name}imum` : `exclusive${name === "min" ? "Minimum" : "Maximum"}`]: value };
}

function lengths(keywords, unit) {
  return Object.fromEntries(Object.entries(keywords).map(([key, value]) => [key.replace(/Length$/, unit), value]));
}

/** Returns a schema of these values alone. Of what JSON lacks, the type. */
function constants(values) {
  if (values.some((value) => typeof value === "bigint")) {
    return { type: "integer" };
  }
  const found = values.filter((value) => value !== undefined);
  return found.length === 1 ? { const: found[0] } : { enum: found };
}

/** Returns the values of an enum, without the names that TypeScript adds for numbers. */
function members(entries) {
  if (Array.isArray(entries)) {
    return entries;
  }
  return Object.entries(entries)
    .filter(([key]) => typeof entries[entries[key]] !== "number")
    .map(([, value]) => value);
}
