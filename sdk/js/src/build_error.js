/** Why no plugin can be made. The text says what to do. */
export class BuildError extends Error {}
