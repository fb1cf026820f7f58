// Tasks in their engine: what values mean, what JavaScript has there, and what leaves nothing to the next item.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { read, write } from "../src/cbor.js";
import { Instance, plugin } from "./engine.js";

const TASKS = `
import { context, http, log, Permanent, Tag, task, Transient, WithTopic } from "pcluster";

export const echo = task((item) => item);
export const call = task((source) => eval(source));
export const later = task(async (source) => await eval(source));
export const many = task(function* (count) {
  for (let number = 0; number < count; number++) {
    yield number;
  }
});
export const slowly = task(async function* (count) {
  for (let number = 0; number < count; number++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    yield number;
  }
});
let loads = 0;
export const state = task((item, made) => [item, made], {
  init: (config) => ({ word: config.word, loads: ++loads, chance: Math.random() }),
  examples: [1, 2],
});
`;

const engine = await plugin({ "tasks.js": TASKS });

const bytesOf = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hexOf = (bytes) => Buffer.from(bytes).toString("hex");

for (const file of ["values", "javascript"]) {
  test(`values mean in the engine what ${file}.json says`, () => {
    const cases = JSON.parse(readFileSync(new URL(`../../cases/${file}.json`, import.meta.url), "utf8"));
    const instance = new Instance(engine);
    for (const { name, in: item, out } of cases) {
      const status = instance.runBytes("echo", bytesOf(item));
      if (out === null) {
        assert.equal(status, 2, name);
        assert.match(instance.reason, /^the item cannot be read: /, name);
      } else {
        assert.equal(instance.reason, undefined, name);
        assert.equal(hexOf(write(instance.outputs[0])), hexOf(write(read(bytesOf(out)))), name);
      }
    }
    const large = "ß".repeat(1 << 19);
    assert.deepEqual(instance.run("echo", large), [large]);
  });
}

test("a task gives none, one or many", () => {
  const instance = new Instance(engine);
  assert.deepEqual(instance.run("call", "undefined"), []);
  assert.deepEqual(instance.run("call", "null"), [null]);
  assert.deepEqual(instance.run("many", 3), [0, 1, 2]);
  assert.deepEqual(instance.run("slowly", 3), [0, 1, 2]);
  assert.deepEqual(instance.run("call", 'new WithTopic("ada", 1)'), [["ada", 1]]);
  assert.deepEqual(instance.run("later", "Promise.resolve(7)"), [7]);
});

test("a state is made once, and examples give nothing", () => {
  const instance = new Instance(engine, { config: { word: "Hi" } });
  assert.equal(instance.load("state"), 0);
  assert.deepEqual(instance.outputs, []);
  const [[item, made]] = instance.run("state", 5);
  assert.deepEqual([item, made.word, made.loads], [5, "Hi", 1]);
});

/** What JavaScript has in the sandbox: a source, and its value. */
const HAS = [
  ["new TextDecoder().decode(new TextEncoder().encode('grüße \\u{1f600}'))", "grüße 😀"],
  ["new TextDecoder().decode(Uint8Array.of(0xff, 0x41, 0xe2, 0x82))", "�A�"],
  ["const d = new TextDecoder(); d.decode(Uint8Array.of(0xe2, 0x82), { stream: true }) + d.decode(Uint8Array.of(0xac))", "€"],
  ["new TextDecoder('utf-16le').decode(Uint8Array.of(0x41, 0))", "A"],
  ["[...new TextEncoder().encode('\\ud800')]", [0xef, 0xbf, 0xbd]],
  ["const a = { m: new Map([[1, [2]]]), d: new Date(5) }; a.self = a; const b = structuredClone(a); [b.self === b, b.m.get(1), +b.d]", [true, [2], 5]],
  ["structuredClone(Uint8Array.of(1, 2))", Uint8Array.of(1, 2)],
  ["new URL('../b?x=1#y', 'https://ada@Example.com:443/a/c/d').href", "https://ada@example.com/a/b?x=1#y"],
  ["const u = new URL('http://h/p?a=1&b=2&a=3'); u.searchParams.set('a', 'ü &'); [u.search, u.searchParams.get('b')]", ["?a=%C3%BC+%26&b=2", "2"]],
  ["URL.canParse('no url')", false],
  ["atob(btoa('hello'))", "hello"],
  ["new Date(0).toISOString() + new Date(2026, 0, 2).getHours()", "1970-01-01T00:00:00.000Z0"],
  ["[/(?<y>\\d{4})/u.exec('in 2026').groups.y, 'aXbX'.replaceAll('X', '-')]", ["2026", "a-b-"]],
  ["Object.groupBy([1, 2, 3], (n) => (n % 2 ? 'odd' : 'even'))", { odd: [1, 3], even: [2] }],
  ["[1, 2, 3].toReversed().at(0)", 3],
  ["[crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(4)).length]", [36, 4]],
  ["[typeof performance.now(), performance.timeOrigin <= Date.now()]", ["number", true]],
  ["process.env.WORD", "Hi"],
  ["context().attempt", 2],
  ["2n ** 64n", 2n ** 64n],
];

test("JavaScript has in the sandbox what the page says", () => {
  const instance = new Instance(engine, { variables: ["WORD=Hi", "TZ=Asia/Kolkata"] });
  for (const [source, value] of HAS) {
    assert.deepEqual(instance.run("call", source), [value], source);
  }
});

test("timers run while a task waits, and are dropped at its end", () => {
  const instance = new Instance(engine);
  const order = "new Promise((done) => { const all = []; setTimeout(() => { all.push(2); done(all); }, 5); setTimeout((n) => all.push(n), 1, 1); })";
  assert.deepEqual(instance.run("later", order), [[1, 2]]);
  const every = "new Promise((done) => { let n = 0; const id = setInterval(() => { if (++n === 3) { clearInterval(id); done(n); } }, 1); })";
  assert.deepEqual(instance.run("later", every), [3]);
  instance.run("call", "setTimeout(() => { globalThis.late = true; }, 1); 0");
  assert.deepEqual(instance.run("later", "new Promise((done) => setTimeout(() => done(globalThis.late === undefined), 5))"), [true]);
});

/** Ways to fail: a source, the status, and what the reason says. */
const FAILS = [
  ["throw new TypeError('bad', { cause: new RangeError('deep') })", 1, /^TypeError: bad; caused by RangeError: deep\n/],
  ["throw new Permanent('never')", 2, /^never$/],
  ["throw new Transient('later', { after: 2 })", 1, /^later$/],
  ["throw 'a text'", 1, /^thrown: "a text"$/],
  ["throw new AggregateError([new Error('one'), new Error('two')], 'all')", 1, /^AggregateError: all; caused by Error: one; caused by Error: two/],
  ["Promise.reject(new Error('dropped')); 1", 1, /^Error: dropped/],
  ["queueMicrotask(() => { throw new Error('queued'); }); 1", 1, /^Error: queued/],
  ["(function f(n) { return f(n + 1) + 1; })(0)", 1, /^RangeError: Maximum call stack size exceeded \(the task calls itself/],
  ["JSON.parse('['.repeat(100000))", 1, /^RangeError: Maximum call stack size exceeded/],
  ["fetch('http://localhost')", 1, /^ReferenceError: '?fetch'? is not defined \(the sandbox has no network/],
  ["http.get('http://localhost')", 2, /^the task does not list that it calls http: task\(\.\.\., \{ calls: \["http"\] \}\)$/],
  ["new Set([1])", 2, /^the output cannot be written: a value of type Set cannot be an output; write \[\.\.\.set\]/],
  ["() => 1", 2, /^the output cannot be written: a value of type Function cannot be an output/],
  ["[Symbol('a')]", 2, /^the output cannot be written: a symbol has no form/],
  ["'\\ud800'", 2, /^the output cannot be written: a text with half of a surrogate pair/],
  ["new Date(NaN)", 2, /^the output cannot be written: a date that is no time/],
  ["const a = []; a[0] = a; a", 2, /^the output cannot be written: nested too deeply/],
];

test("a failure says what happened and what to do", () => {
  for (const [source, status, reason] of FAILS) {
    const instance = new Instance(engine);
    assert.throws(() => instance.run("call", source), (error) => {
      assert.match(error.message, reason, source);
      assert.equal(error.status, status, source);
      assert.equal(error.delay, source.includes("after") ? 2000 : undefined);
      return true;
    });
  }
  const instance = new Instance(engine);
  assert.throws(() => instance.run("later", "new Promise(() => {})"), /the task waits for what cannot come: no timer is set/);
  assert.throws(() => instance.run("later", "Promise.reject(new Error('no'))"), /Error: no/);
});

test("lines of the log have their levels", () => {
  const instance = new Instance(engine);
  instance.run("call", "console.log('a %s b', 1, { c: [1n] }); console.warn(new Map([[1, 2]])); log.debug('d'); console.error('e'); console.trace('t'); 1");
  assert.deepEqual(instance.lines, [
    [3, "a 1 b { c: [ 1n ] }"],
    [2, "Map(1) { 1 => 2 }"],
    [4, "d"],
    [1, "e"],
    [5, "t"],
  ]);
});

test("a reused instance keeps its memory over many items", () => {
  const instance = new Instance(engine);
  const item = { name: "ada", list: [1, 2.5, "three"], nested: { when: new Date(5), cycle: true } };
  const cycle = "const a = {}; a.self = a; new Map([[a, a]]); Promise.resolve(a).then(() => {}); 1";
  for (let round = 0; round < 1000; round++) {
    instance.run("echo", item);
    instance.run("call", cycle);
  }
  const before = instance.memory.length;
  for (let round = 0; round < 5000; round++) {
    instance.run("echo", item);
    instance.run("call", cycle);
  }
  assert.equal(instance.memory.length, before);
});
