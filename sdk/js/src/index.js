// Tasks of pcluster in JavaScript and TypeScript.

export { Bucket, http, publish, publishAndWait, Response, reveal, Secret, Store } from "./calls.js";
export { context } from "./context.js";
export { CallError, Permanent, Transient } from "./errors.js";
export { log } from "./log.js";
export { task } from "./task.js";
export { Tag, WithTopic } from "./values.js";
