import { InkbloomError, abortedError } from './errors.js';
import { resolveModel } from './model-url.js';
import { models } from './models.js';
import { toEngineRequest } from './request.js';
import { Session } from './session.js';
import { describeProgress } from './words.js';

export { InkbloomError, describeProgress };

/**
 * @typedef {import('./errors.js').InkbloomCode} InkbloomCode
 * @typedef {import('./load.js').Progress} Progress
 * @typedef {import('./request.js').GenerateOptions} GenerateOptions
 * @typedef {import('./request.js').Drawing} Drawing
 * @typedef {import('./request.js').Step} Step
 * @typedef {import('./models.js').StoredModel} StoredModel
 * @typedef {import('./contract.js').DeviceChoice} DeviceChoice
 * @typedef {import('./contract.js').DeviceInfo} DeviceInfo
 */

/**
 * @typedef {object} LoadOptions
 * @property {string | URL} model the bundle's folder, absolute or relative to the page
 * @property {DeviceChoice} [device] `auto` (the default) takes WebGPU where there is one, else the CPU, and says why
 * @property {number} [memoryMiB] how much memory the model may take; by default a guess (half of what the browser says the
 *   machine has, or 2048; on the CPU 3072). A model that needs more keeps its weights as f16 where the device can, gives
 *   its text encoder away after each prompt, and decodes in tiles
 * @property {(event: Progress) => void} [onProgress]
 * @property {AbortSignal} [signal] stops the load; shards that arrived whole stay stored
 * @property {string | URL} [workerUrl] where `worker.js` is served, when it is not beside this module
 * @property {string | URL} [wasmUrl] where `inkbloom_bg.wasm` is served, when it is not beside the worker
 */

/**
 * What the loaded model is and can do.
 *
 * @typedef {object} ModelInfo
 * @property {string} name
 * @property {[width: number, height: number][]} sizes that it was trained for; the first is the default
 * @property {string[]} styles words that it knows, for prompts like "<style> of a red apple"
 * @property {number} defaultSteps
 * @property {number} defaultGuidance
 * @property {number} maxTextTokens longer prompts are cut, with a warning
 * @property {'none' | 'straight' | 'premultiplied'} alpha how the model sees transparency; pictures always have straight alpha
 * @property {string} license
 * @property {string} attribution
 * @property {boolean} repaintsOnly whether it needs `init` and `mask`, as inpainting models do
 * @property {'f32' | 'f16'} weights how the device keeps matrices and kernels; all arithmetic is f32
 * @property {boolean} releasesText whether the text encoder is loaded for each prompt and given away after it, to save memory
 */

/**
 * A function of the caller's must not break the drawing; its errors belong to the caller's console.
 *
 * @template T
 * @param {((value: T) => void) | undefined} callback
 * @param {T} value
 */
function tell(callback, value) {
  try {
    callback?.(value);
  } catch (error) {
    reportError(error);
  }
}

/** @param {import('./contract.js').Pixels} pixels */
function toImageData({ data, width, height }) {
  return new ImageData(/** @type {Uint8ClampedArray<ArrayBuffer>} */ (data), width, height);
}

/** @param {LoadOptions} options */
function toSessionOptions({ model, device = 'auto', memoryMiB, workerUrl, wasmUrl }) {
  if (!['auto', 'gpu', 'cpu'].includes(device)) {
    throw new InkbloomError('bad-input', `\`device\` must be 'auto', 'gpu' or 'cpu', not '${device}'.`);
  }
  if (memoryMiB !== undefined && !(typeof memoryMiB === 'number' && memoryMiB > 0)) {
    throw new InkbloomError('bad-input', `\`memoryMiB\` must be a number above 0, not ${String(memoryMiB)}.`);
  }
  /** @param {string | URL | undefined} url */
  const absolute = (url) => (url === undefined ? undefined : new URL(url, document.baseURI).href);
  return {
    address: resolveModel(model, document.baseURI),
    device,
    memoryMiB,
    workerUrl: absolute(workerUrl),
    wasmUrl: absolute(wasmUrl),
  };
}

/** A model on a device, ready to draw. Made by `Inkbloom.load`. */
export class Inkbloom {
  static models = models;

  #options;
  #onProgress;
  #session;
  /** Drawings wait here for each other: a device draws one picture at a time. @type {Promise<unknown>} */
  #queue = Promise.resolve();
  #disposal = new AbortController();

  /**
   * @param {import('./session.js').SessionOptions} options
   * @param {(event: Progress) => void} onProgress
   * @param {Session} session
   */
  constructor(options, onProgress, session) {
    this.#options = options;
    this.#onProgress = onProgress;
    this.#session = session;
  }

  /**
   * Downloads a model once, keeps it in this browser, and brings it onto the device. Resolves when it can draw.
   *
   * @param {LoadOptions} options
   * @returns {Promise<Inkbloom>}
   * @throws {InkbloomError}
   */
  static async load(options) {
    const sessionOptions = toSessionOptions(options);
    /** @param {Progress} event */
    const onProgress = (event) => tell(options.onProgress, event);
    return new Inkbloom(sessionOptions, onProgress, await Session.start(sessionOptions, onProgress, options.signal));
  }

  /** @returns {ModelInfo} */
  get info() {
    const { default_steps, default_guidance, max_text_tokens, releases_text, repaints_only, ...rest } = this.#session.loaded.info;
    return {
      ...rest,
      defaultSteps: default_steps,
      defaultGuidance: default_guidance,
      maxTextTokens: max_text_tokens,
      releasesText: releases_text,
      repaintsOnly: repaints_only,
    };
  }

  /** @returns {DeviceInfo} */
  get device() {
    return this.#session.loaded.device;
  }

  /** Whether the model is stored in this browser, so that the next visit needs no download. */
  get stored() {
    return this.storageNote === undefined;
  }

  /** Why the model is not stored: a sentence for people. */
  get storageNote() {
    return this.#session.loaded.storageNote;
  }

  /**
   * Draws. Calls wait for each other. After a lost device or a crash this call rejects and the next one starts the
   * engine anew, from the stored model.
   *
   * @param {GenerateOptions} options
   * @returns {Promise<Drawing>}
   * @throws {InkbloomError}
   */
  async generate(options) {
    if (this.#disposal.signal.aborted) {
      throw new InkbloomError('bad-input', 'This Inkbloom was disposed of and cannot draw any more: call Inkbloom.load again.');
    }
    const request = toEngineRequest(options);
    const signal = options.signal ? AbortSignal.any([options.signal, this.#disposal.signal]) : this.#disposal.signal;
    const drawing = this.#queue.then(() => this.#draw(request, options.onStep, signal));
    this.#queue = drawing.catch(() => {});
    return untilAborted(drawing, signal);
  }

  /** Stops what is being drawn and frees the device. Stored weights stay. */
  async dispose() {
    this.#disposal.abort();
    this.#session.close(abortedError());
  }

  /**
   * @param {import('./contract.js').EngineRequest} request
   * @param {((step: Step) => void) | undefined} onStep
   * @param {AbortSignal} signal
   * @returns {Promise<Drawing>}
   */
  async #draw(request, onStep, signal) {
    if (signal.aborted) throw abortedError();
    if (!this.#session.open) this.#session = await Session.start(this.#options, this.#onProgress, signal);
    const session = this.#session;
    const cancel = () => session.cancel();
    signal.addEventListener('abort', cancel, { once: true });
    const began = performance.now();
    try {
      const { images, seed, warnings, timings, raw } = await session.generate(request, ({ preview, ...event }) => {
        if (!signal.aborted) tell(onStep, preview ? { ...event, preview: toImageData(preview) } : event);
      });
      return {
        images: images.map(toImageData),
        seed,
        warnings,
        timings: {
          textMs: timings.text_ms,
          denoiseMs: timings.denoise_ms,
          decodeMs: timings.decode_ms,
          totalMs: performance.now() - began,
        },
        ...(raw && { raw }),
      };
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }
}

/**
 * The caller hears of the abort at once; the step at hand is finished behind the scenes.
 *
 * @template T
 * @param {Promise<T>} work
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
function untilAborted(work, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(abortedError());
    if (signal.aborted) abort();
    signal.addEventListener('abort', abort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
