import { InkbloomError } from './errors.js';

/**
 * One step of one picture, as a caller sees it.
 *
 * @typedef {object} Step
 * @property {number} step counts from 1
 * @property {number} steps
 * @property {number} image which picture of `count`, from 0
 * @property {number} count
 * @property {ImageData} [preview] a rough look at the picture so far
 */

/**
 * What `generate` takes. Only `prompt` is required; what is left out, or null, is the model's own default.
 *
 * @typedef {object} GenerateOptions
 * @property {string} prompt may be empty where a picture is given to start from
 * @property {string} [negativePrompt] what the picture should not be
 * @property {number | bigint | string} [seed] 0 to 2^64 - 1 (a decimal string or a bigint beyond 2^53); a new one each time when left out or -1
 * @property {number} [steps]
 * @property {number} [guidance] how strictly the prompt is followed; 1 turns guidance off and halves the work
 * @property {number} [width]
 * @property {number} [height]
 * @property {number} [count] how many pictures; picture i is drawn with noise of its own
 * @property {string} [scheduler] another solver than the model's own: `flow-heun`, `dpm++`, `euler-a`, ...
 * @property {number} [eta] 0 to 1: how much fresh noise each step of `ddim` or `tcd` adds
 * @property {Pixels} [init] a picture to start from, an `ImageData` of the size to draw
 * @property {number} [strength] 0 to 1: how much of `init` is drawn anew
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
 * @property {string} seed in decimal; give it back to draw the same picture again
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
 * @returns {number | undefined}
 */
function wholeNumber(name, value) {
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > 0xffffffff) {
    throw badInput(`\`${name}\` must be a whole number of at least 1, not ${String(value)}.`);
  }
  return value;
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
 * Checks the kinds of values here, where the caller's stack still is; what the model can do (sizes, steps,
 * tokens) is the engine's to judge, for only it knows the model.
 *
 * @param {GenerateOptions} options
 * @returns {import('./contract.js').EngineRequest}
 */
export function toEngineRequest(options) {
  const { prompt = '', ...rest } = given(options);
  if (typeof prompt !== 'string') throw badInput('`prompt` must be a string.');
  // A picture says by itself what to draw.
  if (prompt.trim() === '' && rest.init === undefined) {
    throw badInput("The prompt is empty: say in a few words what to draw, for example 'a red apple'.");
  }
  const { eta, guidance, negativePrompt, noise, scheduler, strength } = rest;
  if (negativePrompt !== undefined && typeof negativePrompt !== 'string') throw badInput('`negativePrompt` must be a string.');
  if (guidance !== undefined && !(typeof guidance === 'number' && Number.isFinite(guidance))) {
    throw badInput(`\`guidance\` must be a number, not ${String(guidance)}.`);
  }
  if (scheduler !== undefined && typeof scheduler !== 'string') throw badInput('`scheduler` must be a string.');
  if (strength !== undefined && typeof strength !== 'number') throw badInput(`\`strength\` must be a number from 0 to 1, not ${String(strength)}.`);
  if (eta !== undefined && typeof eta !== 'number') throw badInput(`\`eta\` must be a number from 0 to 1, not ${String(eta)}.`);
  if (noise !== undefined && !(noise instanceof Float32Array)) throw badInput('`noise` must be a Float32Array of C x h x w values.');
  /** @type {import('./contract.js').EngineRequest} */
  const request = {
    prompt,
    negative_prompt: negativePrompt,
    seed: rest.seed === undefined ? randomSeed() : parseSeed(rest.seed),
    steps: wholeNumber('steps', rest.steps),
    guidance,
    width: wholeNumber('width', rest.width),
    height: wholeNumber('height', rest.height),
    count: wholeNumber('count', rest.count),
    scheduler,
    eta,
    init: picture('init', rest.init),
    strength,
    mask: picture('mask', rest.mask),
    preview: rest.preview ?? rest.onStep !== undefined,
    noise,
    raw: rest.raw,
  };
  // The engine tells "left out" from "given" by the key's presence.
  return /** @type {import('./contract.js').EngineRequest} */ (
    Object.fromEntries(Object.entries(request).filter(([, value]) => value !== undefined)));
}
