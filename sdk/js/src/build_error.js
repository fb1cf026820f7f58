/** Why no plugin can be made. The text says what to do. */
export class BuildError extends Error {}

/** esbuild is needed and missing. `pcluster build` knows by the exit status of 3 that it is to provide it. */
export class NoBundler extends BuildError {}
