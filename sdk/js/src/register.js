// Lets Node.js import tasks as a worker does: `node --import pcluster/register --test orders.test.ts`.

import { register } from "node:module";

process.setSourceMapsEnabled(true);
register(new URL("./worker_hooks.js", import.meta.url));
