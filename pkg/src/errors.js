/**
 * What can go wrong, as a stable word that code can branch on. The message beside it is for people.
 *
 * @typedef {'unsupported' | 'bad-input' | 'bad-model' | 'download-failed' | 'corrupt-weights'
 *   | 'quota' | 'out-of-memory' | 'device-lost' | 'aborted'} InkbloomCode
 */

/** Every failure of this package: `code` is stable, `message` is a sentence that says what to do. */
export class InkbloomError extends Error {
  /**
   * @param {InkbloomCode} code
   * @param {string} message
   * @param {ErrorOptions} [options]
   */
  constructor(code, message, options) {
    super(message, options);
    this.name = 'InkbloomError';
    /** @type {InkbloomCode} */
    this.code = code;
  }
}

/**
 * An error as it travels between the worker and the page (class instances do not survive the trip).
 *
 * @typedef {{ code: InkbloomCode, message: string }} PlainError
 */

/** @type {ReadonlySet<string>} */
const CODES = new Set(/** @type {InkbloomCode[]} */ ([
  'unsupported', 'bad-input', 'bad-model', 'download-failed', 'corrupt-weights',
  'quota', 'out-of-memory', 'device-lost', 'aborted',
]));

/** The engine cannot go on after these: its worker is thrown away and built anew on the next call. */
const FATAL = new Set(['out-of-memory', 'device-lost']);

/** A wasm heap this large when it trapped almost surely trapped because it could not grow. */
const SUSPICIOUS_HEAP_BYTES = 1.5 * 2 ** 30;

/**
 * @param {unknown} error
 * @returns {error is { code: InkbloomCode, message: string }}
 */
function hasCode(error) {
  return typeof error === 'object' && error !== null && 'code' in error
    && typeof error.code === 'string' && CODES.has(error.code);
}

/**
 * Turns whatever was thrown into one of our codes. Errors of the engine already carry theirs; a trap of
 * the wasm (a panic, or memory that could not grow) carries none and is told apart by what it says.
 *
 * @param {unknown} error
 * @param {number} [heapBytes] size of the wasm heap when it happened
 * @returns {PlainError}
 */
export function toPlainError(error, heapBytes = 0) {
  const message = error instanceof Error ? error.message : String(error);
  if (hasCode(error)) return { code: error.code, message };
  if (heapBytes > SUSPICIOUS_HEAP_BYTES || /out of memory|allocation failed|memory\.grow/i.test(message)) {
    return {
      code: 'out-of-memory',
      message: `There was not enough memory to go on (${message}). Close other tabs, or ask for a smaller or a single picture, and try again.`,
    };
  }
  if (typeof WebAssembly === 'undefined' || error instanceof WebAssembly.CompileError) {
    return {
      code: 'unsupported',
      message: `This browser cannot run the drawing engine (${message}). Use a current version of Chrome, Edge, Firefox or Safari; if this is your page, its Content-Security-Policy must allow 'wasm-unsafe-eval'.`,
    };
  }
  return {
    code: 'device-lost',
    message: `The drawing engine stopped unexpectedly (${message}). Draw again: it is started anew and the model is read back from this browser's storage.`,
  };
}

/** @param {PlainError} error */
export function isFatal(error) {
  return FATAL.has(error.code);
}

/**
 * @param {PlainError} plain
 * @returns {InkbloomError}
 */
export function fromPlainError(plain) {
  return new InkbloomError(plain.code, plain.message);
}

/** The worker is gone and did not say why: it is started again once. */
export class WorkerDied extends InkbloomError {
  constructor() {
    super('device-lost', 'The drawing engine stopped without a word.');
  }
}

/** @returns {InkbloomError} */
export function abortedError() {
  return new InkbloomError('aborted', 'The drawing was cancelled.');
}
