// The errors by which a task says what becomes of its item. Any other means: try again.

/** No attempt can succeed: the item becomes a dead letter at once. */
export class Permanent extends Error {
  static {
    this.prototype.name = "Permanent";
  }
}

/** Another attempt may succeed. `after` says how many seconds it waits, in place of the stage's back-off. */
export class Transient extends Error {
  static {
    this.prototype.name = "Transient";
  }

  constructor(message, options = {}) {
    super(message, options);
    this.after = options.after;
  }
}

/** The call of a node has failed. `kind` says why, and `transient` whether another attempt may succeed. */
export class CallError extends Error {
  static {
    this.prototype.name = "CallError";
  }

  constructor(kind, message, { transient = false, after } = {}) {
    super(message);
    this.kind = kind;
    this.transient = transient;
    this.after = after;
  }
}
