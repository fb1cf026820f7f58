// Measures the three typical stages under BullMQ, with the functions of tasks/w1.ts as they are: a queue for each stage, and a process
// with a worker of each queue for each processor. What was fed waits in a queue that is paused until the clock begins.
//
// `node --import pcluster/register bullmq_w1.mjs ITEMS`. BULLMQ_REDIS is the port of a server that keeps nothing on disk, and BULLMQ_SERVER
// its process; NODE_PATH has BullMQ. Prints the seconds until every record is through, and the processor time of server and workers.

import { fork } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { availableParallelism } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { count_words, halve, keep_even } from "./tasks/w1.ts";

// Unlike `import`, it looks into NODE_PATH.
const { Queue, Worker } = createRequire(import.meta.url)("bullmq");

const connection = { host: "127.0.0.1", port: Number(process.env.BULLMQ_REDIS), maxRetriesPerRequest: null };
const STAGES = ["halve", "count_words", "keep_even"];
/** How many jobs a worker has in hand. */
const CONCURRENCY = 64;
/** How many jobs are added at once. */
const BULK = 500;
const WORDS =
  "a chain is a named list of stages and a stage is a place in it where a task runs on one item after the other while the items wait " +
  "in a queue that the server keeps for all the nodes which share the work between them however many there are and whichever of them " +
  "comes or goes in the meantime";

const queues = Object.fromEntries(STAGES.map((name) => [name, new Queue(name, { connection })]));
const job = (data) => ({ name: "record", data });

/** Runs the workers of a process until it is killed. */
async function work() {
  const handlers = {
    halve: ({ data }) => queues.count_words.addBulk([...halve(data)].map(job)),
    count_words: ({ data }) => queues.keep_even.add("record", count_words(data)),
    keep_even: ({ data }) => keep_even(data),
  };
  // Only what the last stage returns is kept.
  const options = (name) => ({ connection, concurrency: CONCURRENCY, removeOnComplete: name === "keep_even" ? { count: -1 } : { count: 0 } });
  const workers = STAGES.map((name) => new Worker(name, async (each) => handlers[name](each), options(name)));
  await Promise.all(workers.map((worker) => worker.waitUntilReady()));
  process.send("ready");
}

/** Returns the processor time of processes in seconds. */
function processorSeconds(processes) {
  const ticks = processes.map((process) => {
    const fields = readFileSync(`/proc/${process}/stat`, "utf8").split(") ").pop().split(" ");
    return Number(fields[11]) + Number(fields[12]);
  });
  return ticks.reduce((sum, each) => sum + each, 0) / 100;
}

async function feed(items) {
  for (let first = 0; first < items; first += BULK) {
    const ids = Array.from({ length: Math.min(BULK, items - first) }, (_, index) => first + index);
    await queues.halve.addBulk(ids.map((id) => job({ id, text: WORDS.slice(0, 190 + ((id * 37) % 96)) })));
  }
}

async function measure(items, workers) {
  await queues.halve.pause();
  await feed(items);
  const server = [process.env.BULLMQ_SERVER];
  const before = [processorSeconds(server), processorSeconds(workers)];
  const begun = performance.now();
  await queues.halve.resume();
  while ((await queues.keep_even.getCompletedCount()) < 2 * items) {
    await sleep(5);
  }
  const seconds = (performance.now() - begun) / 1000;
  const after = [processorSeconds(server), processorSeconds(workers)];
  const kept = (await queues.keep_even.getCompleted(0, -1)).filter(({ returnvalue }) => returnvalue);
  if (kept.length !== items) {
    throw new Error(`${kept.length} of ${items} records have come out`);
  }
  console.log(JSON.stringify({ seconds, server: after[0] - before[0], worker: after[1] - before[1] }));
}

if (process.send) {
  await work();
} else {
  const workers = Array.from({ length: availableParallelism() }, () => fork(fileURLToPath(import.meta.url)));
  try {
    const ended = workers.map((worker) => new Promise((_, reject) => worker.once("exit", () => reject(new Error("a worker has ended")))));
    const ready = workers.map((worker) => new Promise((resolve) => worker.once("message", resolve)));
    await Promise.race([Promise.all(ready), ...ended]);
    await measure(Number(process.argv[2]), workers.map(({ pid }) => pid));
  } finally {
    workers.forEach((worker) => worker.removeAllListeners("exit").kill());
    await Promise.all(Object.values(queues).map((queue) => queue.close()));
  }
}
