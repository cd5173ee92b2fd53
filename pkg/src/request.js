import { InkbloomError } from './errors.js';

/**
 * One step of one picture, as a caller sees it.
 *
 * @typedef {object} Step
 * @property {'layout' | 'detail' | 'denoise'} stage what is being drawn: a small picture as codes, a row a step; the large one as
 *   codes; or the picture from noise. Steps are counted in each
 * @property {number} step counts from 1
 * @property {number} steps
 * @property {number} image which picture of `count`, from 0
 * @property {number} count how many are drawn
 * @property {ImageData} [preview] a rough look at the picture so far
 * @property {string} [seed] of a candidate whose steps are done: told once more, with its score
 * @property {number} [score] the scorer's word on that candidate, -1 to 1
 */

/**
 * What `generate` takes: the options, which the core defines and checks, and what only JavaScript has. Only `prompt` is
 * required, and it may be empty where a picture is given to start from; what is left out, or null, is the model's own default.
 *
 * @typedef {Omit<import('./options.js').Options, 'seed'> & OnlyHere} GenerateOptions
 *
 * @typedef {object} OnlyHere
 * @property {number | bigint | string} [seed] 0 to 2^64 - 1 (a decimal string or a bigint beyond 2^53); a new one each time when left out or -1
 * @property {Pixels} [init] a picture to start from, an `ImageData` of the size to draw
 * @property {Pixels} [mask] with `init`, of its size: drawn anew where it is white, kept where it is black
 * @property {boolean} [preview] whether steps carry a preview; on when `onStep` is given
 * @property {Float32Array} [noise] starting noise [C, h, w] in place of the seed's, to compare runs number by number
 * @property {boolean} [raw] also return the decoder's values before they are rounded to bytes
 * @property {AbortSignal} [signal] cancels between two steps
 * @property {(step: Step) => void} [onStep]
 */

/**
 * @typedef {import('./contract.js').Pixels} Pixels
 */

/**
 * What `generate` resolves to.
 *
 * @typedef {object} Drawing
 * @property {ImageData[]} images RGBA with straight alpha, ready for `putImageData`
 * @property {string} seed in decimal; give it back to draw the same pictures again
 * @property {string[]} seeds of each picture, which draws it alone
 * @property {number[]} [scores] of each picture, where there were candidates; the best comes first
 * @property {string[]} warnings sentences, for example that the prompt was too long and was cut
 * @property {{ textMs: number, denoiseMs: number, decodeMs: number, totalMs: number }} timings
 * @property {Float32Array[]} [raw] [C, H, W] per picture, when `raw` was asked for
 */

const SEED_LIMIT = 2n ** 64n;

/** @param {string} message */
function badInput(message) {
  return new InkbloomError('bad-input', message);
}

/**
 * What was given: null and undefined both mean "left out", whichever a form, JSON or another language makes of it.
 *
 * @template {object} T
 * @param {T} options
 * @returns {T}
 */
export function given(options) {
  return /** @type {T} */ (Object.fromEntries(Object.entries(options ?? {}).filter(([, value]) => value !== undefined && value !== null)));
}

/**
 * @param {unknown} seed
 * @returns {string} decimal
 */
export function parseSeed(seed) {
  const wrong = () => badInput(`\`seed\` must be a whole number from 0 to ${SEED_LIMIT - 1n}, or -1 for a new one, not ${typeof seed === 'string' ? `"${seed}"` : String(seed)}.`);
  /** @type {bigint} */
  let value;
  if (typeof seed === 'bigint') value = seed;
  else if (typeof seed === 'number') {
    // Beyond 2^53 a number silently stands for its neighbours too, and the picture could not be drawn again.
    if (!Number.isSafeInteger(seed)) throw wrong();
    value = BigInt(seed);
  } else if (typeof seed === 'string' && /^(\d+|-1)$/.test(seed.trim())) value = BigInt(seed.trim());
  else throw wrong();
  if (value === -1n) return randomSeed();
  if (value < 0n || value >= SEED_LIMIT) throw wrong();
  return value.toString();
}

/** A seed short enough to read aloud. */
export function randomSeed() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0]);
}

/**
 * @param {string} name
 * @param {unknown} value
 * @returns {Pixels | undefined} a plain copy of the fields, for an ImageData's do not survive a spread
 */
function picture(name, value) {
  if (value === undefined) return undefined;
  const { width, height, data } = /** @type {Partial<Pixels>} */ (value);
  if (typeof width !== 'number' || typeof height !== 'number' || !(data instanceof Uint8ClampedArray) || data.length !== width * height * 4) {
    throw badInput(`\`${name}\` must be an ImageData: { width, height, data } with four bytes for each pixel.`);
  }
  return { width, height, data };
}

/**
 * An option as it may cross to the worker. What no option is (a function, a list, NaN) goes as a text, which the core
 * refuses in words.
 *
 * @param {unknown} value
 */
function plain(value) {
  return typeof value === 'string' || typeof value === 'boolean' || Number.isFinite(value) ? value : String(value);
}

/**
 * Checks what the core does not know; options are the core's to judge.
 *
 * @param {GenerateOptions} options
 * @returns {import('./contract.js').EngineRequest}
 */
export function toEngineRequest(options) {
  const { seed, init, mask, noise, raw, onStep, preview = onStep !== undefined, signal, ...rest } = given(options);
  if (noise !== undefined && !(noise instanceof Float32Array)) throw badInput('`noise` must be a Float32Array of C x h x w values.');
  const checked = Object.entries(rest).map(([name, value]) => [name, plain(value)]);
  return /** @type {import('./contract.js').EngineRequest} */ (given({
    ...Object.fromEntries(checked),
    seed: seed === undefined ? randomSeed() : parseSeed(seed),
    init: picture('init', init),
    mask: picture('mask', mask),
    preview,
    // Else nothing is read back from the device before the picture.
    watched: preview || onStep !== undefined || signal !== undefined,
    noise,
    raw,
  }));
}
