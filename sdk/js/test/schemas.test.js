// The schemas of tasks: of zod 3 and 4, by hand, and in a plugin.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import { schemaOf } from "../src/schemas.js";
import { inFolder, plugin } from "./engine.js";

// The packages of the tests lie in NODE_PATH, which only `require` looks at.
const require = createRequire(import.meta.url);
const VERSIONS = { "zod 4": require("zod").z, "zod 3": require("zod/v3").z };

/** What is said of a check that no keyword says, of what a task gives. */
const REFINED = { "x-untold": "a refinement" };

/** A schema of each kind, and what it is for what a task takes. The same for what it gives, or what stands third. */
const TABLE = [
  [(z) => z.string(), { type: "string" }],
  [(z) => z.string().min(1).max(5), { type: "string", minLength: 1, maxLength: 5 }],
  [(z) => z.string().regex(/^a+$/), { type: "string", pattern: "^a+$" }],
  [(z) => z.string().regex(/^a+$/i), { type: "string" }, { type: "string", ...REFINED }],
  [(z) => z.string().email(), { type: "string" }, { type: "string", format: "email" }],
  [(z) => z.string().url().trim(), { type: "string" }, { type: "string", format: "uri" }],
  [(z) => z.string().length(5), { type: "string", minLength: 5, maxLength: 5 }],
  [(z) => z.bigint().min(0n), { type: "integer" }, { type: "integer", ...REFINED }],
  [(z) => z.number().refine((number) => number > 0), { type: "number" }, { type: "number", ...REFINED }],
  [(z) => z.array(z.string()).refine(() => true), { type: "array", items: { type: "string" } }, { type: "array", items: { type: "string" }, ...REFINED }],
  [(z) => z.number(), { type: "number" }],
  [(z) => z.number().multipleOf(1).min(0), { type: "number", minimum: 0, multipleOf: 1 }],
  [(z) => z.number().gt(0).lt(10).multipleOf(2), { type: "number", exclusiveMinimum: 0, exclusiveMaximum: 10, multipleOf: 2 }],
  [(z) => z.bigint(), { type: "integer" }],
  [(z) => z.boolean(), { type: "boolean" }],
  [(z) => z.null(), { type: "null" }],
  [(z) => z.date(), { type: "string", format: "date-time" }],
  [(z) => z.any(), {}, { "x-untold": "any" }],
  [(z) => z.coerce.number(), {}, { type: "number" }],
  [(z) => z.literal("a"), { const: "a" }],
  [(z) => z.enum(["a", "b"]), { enum: ["a", "b"] }],
  [(z) => z.nativeEnum({ 0: "Low", Low: 0, High: "high" }), { enum: [0, "high"] }],
  [(z) => z.array(z.string()).min(1), { type: "array", items: { type: "string" }, minItems: 1 }],
  [(z) => z.tuple([z.string()]), { type: "array", prefixItems: [{ type: "string" }], items: false, minItems: 1 }],
  [
    (z) => z.record(z.string(), z.number()),
    { type: "object", additionalProperties: { type: "number" } },
    { type: "object", additionalProperties: { type: "number" }, "x-untold": "which keys it has" },
  ],
  [(z) => z.union([z.string(), z.number()]), { anyOf: [{ type: "string" }, { type: "number" }] }],
  [(z) => z.string().nullable(), { anyOf: [{ type: "string" }, { type: "null" }] }],
  [(z) => z.string().refine((text) => text !== ""), { type: "string" }, { type: "string", ...REFINED }],
  [
    (z) => z.object({ id: z.number(), name: z.string().optional() }),
    { type: "object", properties: { id: { type: "number" }, name: { type: "string" } }, required: ["id"] },
  ],
  [
    (z) => z.object({ id: z.number().default(1) }),
    { type: "object", properties: { id: { type: "number" } }, required: [] },
    { type: "object", properties: { id: { type: "number" } }, required: ["id"] },
  ],
  [(z) => z.object({}).strict(), { type: "object", properties: {}, required: [], additionalProperties: false }],
  [(z) => z.string().transform((text) => text.length).pipe(z.number()), { type: "string" }, { type: "number" }],
];

for (const [version, z] of Object.entries(VERSIONS)) {
  test(`schemas of ${version} are JSON Schemas`, () => {
    for (const [make, input, output = input] of TABLE) {
      assert.deepEqual(schemaOf(make(z), "input"), input, String(make));
      assert.deepEqual(schemaOf(make(z), "output"), output, String(make));
    }
  });

  test(`a schema of ${version} may refer to itself`, () => {
    const tree = z.object({ left: z.lazy(() => tree).nullable() });
    const node = { type: "object", properties: { left: { anyOf: [{ $ref: "#/$defs/schema1" }, { type: "null" }] } }, required: ["left"] };
    assert.deepEqual(schemaOf(tree, "input"), { $ref: "#/$defs/schema1", $defs: { schema1: node } });
  });
}

test("what a task gives is not said to be more than zod lets it be", () => {
  const { "zod 4": z, "zod 3": old } = VERSIONS;
  const [minimum, maximum] = [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER];
  for (const [schema, output] of [
    [z.int(), { type: "integer", minimum, maximum }],
    [z.number().min(0).int(), { type: "integer", minimum: 0, maximum }],
    [z.uint32(), { type: "integer", minimum: 0, maximum: 4294967295 }],
    [z.string().startsWith("a"), { type: "string", pattern: "^a.*" }],
    [z.object({}).refine(() => true), { type: "object", properties: {}, required: [], ...REFINED }],
    [old.number().int().min(0), { type: "integer", minimum: 0 }],
    [old.string().startsWith("a"), { type: "string", ...REFINED }],
  ]) {
    assert.deepEqual(schemaOf(schema, "output"), output);
  }
  assert.deepEqual(schemaOf(z.int(), "input"), { type: "integer" });
});

test("other schemas are by hand, or as their library offers them", () => {
  assert.deepEqual(schemaOf({ type: "string" }, "input"), { type: "string" });
  assert.equal(schemaOf(true, "output"), true);
  const offered = { "~standard": { vendor: "other", jsonSchema: { output: ({ target }) => ({ target }) } } };
  assert.deepEqual(schemaOf(offered, "output"), { target: "draft-2020-12" });
  assert.throws(() => schemaOf({ "~standard": {} }, "input"), /offers no JSON Schema; write it by hand/);
  assert.throws(() => schemaOf("string", "input"), /a task's input is a JSON Schema or a schema of zod, not "string"/);
});

/** Returns what a plugin says of its first task. */
function described(bytes) {
  const [section] = WebAssembly.Module.customSections(new WebAssembly.Module(bytes), "pcluster");
  return JSON.parse(Buffer.from(section).toString().split("\n")[0]);
}

test("a plugin holds the schemas of its tasks, and nothing that reads them", async () => {
  const schema = '{ input: { type: "string" }, output: { type: "number" } }';
  const source = `import { task } from "pcluster";\nexport const size = task((text) => text.length, { schema: ${schema} });\n`;
  const bytes = await plugin({ "tasks.js": source });
  assert.deepEqual(described(bytes).schema, { input: { type: "string" }, output: { type: "number" } });
  assert.ok(!bytes.includes("a schema that is not of zod"));
  await inFolder({ "tasks.js": source.replace("output:", "outputs:") }, async (folder) => {
    const { build } = await import("../src/build.mjs");
    await assert.rejects(build(folder), /the `schema` of the task `size` has no `outputs`; it has input and output/);
  });
});
