// The author's modules: which they are, and what becomes of them.

import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { createRequire, isBuiltin } from "node:module";
import { basename, delimiter, dirname, extname, join, relative, resolve, sep } from "node:path";
import { pathToFileURL } from "node:url";
import { BuildError, NoBundler } from "./build_error.js";
import { split } from "./maps.js";

const TYPED = [".ts", ".mts", ".tsx", ".cts"];
const PLAIN = [".js", ".mjs"];
const OFFERED = "pcluster";
const BUNDLE = "bundle.js";
const ENTRIES = ["index", "tasks", "task", "src/index"].flatMap((name) => [...TYPED, ...PLAIN].map((ending) => name + ending));
const WORKER = 'run the file as a native worker: `exec = ["node", ".../pcluster/src/worker.mjs", "FILE"]` and `isolation = "worker"`';

/** Returns the folder of a plugin, and the file in it that exports the tasks. */
export function entryOf(path, named) {
  if (statSync(path).isFile()) {
    return { folder: dirname(path), file: basename(path) };
  }
  const manifest = join(path, "package.json");
  const main = named ?? (existsSync(manifest) ? JSON.parse(readFileSync(manifest, "utf8")).main : undefined);
  if (main !== undefined) {
    if (!existsSync(join(path, main))) {
      throw new BuildError(`there is no ${join(path, main)}; \`--entry FILE\` or \`main\` in package.json names the file with the tasks`);
    }
    return { folder: path, file: main };
  }
  const known = ENTRIES.find((file) => existsSync(join(path, file)));
  const modules = readdirSync(path).filter(isModule);
  if (known === undefined && modules.length !== 1) {
    const which = modules.length === 0 ? "has no module" : `has ${modules.join(", ")}`;
    throw new BuildError(`${path} ${which}; \`--entry FILE\` or \`main\` in package.json names the file with the tasks`);
  }
  return { folder: path, file: known ?? modules[0] };
}

function isModule(name) {
  const isOther = /(^|[._-])(test|spec)\.[a-z]+$|\.config\.|\.d\.[cm]?ts$/.test(name);
  return [...TYPED, ...PLAIN].includes(extname(name)) && !isOther;
}

/** Returns the path in the plugin of the entry, all modules by their paths in it, and the paths of the files that were read. */
export async function collect({ folder, file }) {
  return plain(folder, file) ?? (await bundle(folder, file));
}

const IMPORT = /(?:^|[;\s}])(?:import|export)\s*(?:[\w*{}\s,$]*?\sfrom\s*|\{[^}]*\}\s*from\s*|\*\s*from\s*)?["']([^"'\n]+)["']|\bimport\s*\(\s*["']([^"'\n]+)["']/g;

/** Returns modules in plain JavaScript that import each other and the SDK alone. `undefined` if there is more to do. */
function plain(folder, file) {
  const files = new Map();
  const left = [resolve(folder, file)];
  while (left.length > 0) {
    const path = left.pop();
    const below = relative(folder, path).split(sep).join("/");
    if (files.has(below)) {
      continue;
    }
    if (below.startsWith("..") || !(PLAIN.includes(extname(path)) || extname(path) === ".json") || !existsSync(path)) {
      return undefined;
    }
    const source = readFileSync(path, "utf8");
    if (extname(path) === ".json") {
      files.set(below, `export default ${JSON.stringify(JSON.parse(source))};`);
      continue;
    }
    files.set(below, source);
    for (const [, from, late] of source.matchAll(IMPORT)) {
      const name = from ?? late;
      if (name.startsWith("./") || name.startsWith("../")) {
        left.push(resolve(dirname(path), name));
      } else if (name !== OFFERED && !name.startsWith(`${OFFERED}/`)) {
        return undefined;
      }
    }
  }
  const read = [...files.keys()].map((below) => resolve(folder, below));
  return { entry: relative(folder, resolve(folder, file)).split(sep).join("/"), files, read };
}

/** Returns esbuild: the author's own, or that of this package. */
export async function esbuild(folder) {
  try {
    return (await import(pathToFileURL(bundler(folder)).href)).default;
  } catch (error) {
    throw error instanceof BuildError ? error : new BuildError(`esbuild cannot start: ${error.message}`);
  }
}

/** Returns the file that holds esbuild. */
function bundler(folder) {
  for (const from of [join(folder, "package.json"), import.meta.url]) {
    try {
      return createRequire(from).resolve("esbuild");
    } catch {
      // The next may have it.
    }
  }
  throw new NoBundler(`TypeScript and packages are bundled by esbuild, which is missing; in ${folder}, run: npm install --save-dev esbuild`);
}

/** Modules of Node.js that a package may require where it runs there, and nowhere else. They are missed only by who gets that far. */
const LATE = {
  name: "late",
  setup(build) {
    build.onResolve({ filter: /^[a-z:_/]+$/ }, ({ path, kind }) =>
      isBuiltin(path) && kind !== "import-statement" ? { path, namespace: "late", sideEffects: false } : undefined,
    );
    build.onLoad({ filter: /.*/, namespace: "late" }, ({ path }) => ({
      contents: `throw new Error(${JSON.stringify(`Cannot find module '${path}': the sandbox is not Node.js; ${WORKER}`)});`,
    }));
  },
};

/** Files that an import gives as they are. */
const ASSETS = { ".txt": "text", ".sql": "text", ".csv": "text", ".html": "text", ".bin": "binary" };

async function bundle(folder, file) {
  const compiler = await esbuild(folder);
  const options = {
    bundle: true,
    write: false,
    format: "esm",
    charset: "utf8",
    external: [OFFERED, `${OFFERED}/*`],
    sourcemap: "external",
    sourcesContent: false,
    logLevel: "silent",
    loader: ASSETS,
    entryPoints: [resolve(folder, file)],
    absWorkingDir: folder,
    nodePaths: (process.env.NODE_PATH ?? "").split(delimiter).filter(Boolean),
    outfile: join(folder, BUNDLE),
    target: "es2023",
    platform: "neutral",
    mainFields: ["module", "main"],
    conditions: ["module", "import"],
    define: { "process.env.NODE_ENV": '"production"' },
    metafile: true,
    // Not one of a folder above.
    tsconfigRaw: existsSync(join(folder, "tsconfig.json")) ? undefined : "{}",
    plugins: [LATE],
  };
  try {
    const { outputFiles, warnings, metafile } = await compiler.build(options);
    await warn(compiler, warnings);
    const [map, code] = outputFiles.toSorted((a, b) => b.path.length - a.path.length);
    const inputs = Object.keys(metafile.inputs).map((path) => resolve(folder, path));
    const read = [...inputs.filter((path) => existsSync(path)), bundler(folder)];
    return { entry: BUNDLE, files: split(BUNDLE, map.text).set(BUNDLE, code.contents), read };
  } catch (error) {
    if (error.errors === undefined) {
      throw error;
    }
    throw new BuildError(told(error.errors));
  }
}

async function warn(compiler, warnings) {
  for (const line of await compiler.formatMessages(warnings, { kind: "warning" })) {
    process.stderr.write(line);
  }
}

function told(errors) {
  const lines = errors.map(({ text, location }) => {
    const where = location ? `${location.file}:${location.line}:${location.column + 1}: ` : "";
    const advice = /Could not resolve "(node:)?(fs|net|http|https|child_process|worker_threads|os|crypto|stream|path|buffer|util)/.test(text)
      ? `\nthe sandbox is not Node.js; ${WORKER}`
      : "";
    return `${where}${text}${location ? `\n    ${location.lineText.trim()}` : ""}${advice}`;
  });
  return lines.join("\n");
}
