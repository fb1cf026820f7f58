// How a worker imports: the SDK under its name, and TypeScript by way of esbuild.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { dirname, extname } from "node:path";
import { fileURLToPath } from "node:url";
import { esbuild } from "./sources.js";

const OFFERED = { pcluster: new URL("./index.js", import.meta.url).href, "pcluster/testing": new URL("./testing.js", import.meta.url).href };
const LOADERS = { ".ts": "ts", ".mts": "ts", ".tsx": "tsx" };
const ENDINGS = [".ts", ".js", ".mts", ".mjs", "/index.ts", "/index.js"];

export async function resolve(specifier, context, next) {
  if (specifier in OFFERED) {
    return { url: OFFERED[specifier], shortCircuit: true };
  }
  if (/^\.\.?\//.test(specifier) && context.parentURL?.startsWith("file:")) {
    const url = new URL(specifier, context.parentURL).href;
    const bare = url.replace(/\.m?js$/, "");
    // As bundlers do: without an ending, or with that of what TypeScript is compiled to.
    const found = existsSync(fileURLToPath(url)) && extname(url) ? url : ENDINGS.map((ending) => bare + ending).find((each) => existsSync(fileURLToPath(each)));
    return next(found ?? specifier, context);
  }
  return next(specifier, context);
}

export async function load(url, context, next) {
  const loader = url.startsWith("file:") ? LOADERS[extname(url)] : undefined;
  if (loader === undefined) {
    return url.endsWith(".json") ? next(url, { ...context, importAttributes: { type: "json" } }) : next(url, context);
  }
  const path = fileURLToPath(url);
  const { transform } = await esbuild(dirname(path));
  const options = { loader, sourcefile: path, sourcemap: "inline", format: "esm", target: `node${process.versions.node}` };
  const { code } = await transform(await readFile(path, "utf8"), options);
  return { format: "module", source: code, shortCircuit: true };
}
