import { untilAborted, withAnyOf } from './abort.js';
import { Animation } from './animation.js';
import { Engine } from './engine.js';
import { InkbloomError } from './errors.js';
import { pageAddress, resolveModel } from './model-url.js';
import { models } from './models.js';
import { given, picture, plain, toEngineRequest } from './request.js';
import { describeProgress } from './words.js';

export { Animation, InkbloomError, describeProgress };

/**
 * @typedef {import('./errors.js').InkbloomCode} InkbloomCode
 * @typedef {import('./load.js').Progress} Progress
 * @typedef {import('./request.js').GenerateOptions} GenerateOptions
 * @typedef {import('./animation.js').SaveOptions} SaveOptions
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
 * @property {number} cell side in pixels of the squares that a `mask` acts on
 * @property {string[]} styles words that it knows, for prompts like "<style> of a red apple"
 * @property {number} defaultSteps
 * @property {number} defaultGuidance
 * @property {number} maxTextTokens longer prompts are cut, with a warning
 * @property {'none' | 'straight' | 'premultiplied'} alpha how the model sees transparency; pictures always have straight alpha
 * @property {string} license
 * @property {string} attribution
 * @property {boolean} chooses whether it has a scorer to choose among `candidates` with
 * @property {('diffusion' | 'tokens' | 'hybrid')[]} ways the ways of drawing that it has, for `way`; the first is the default
 * @property {Record<string, number>} downloads how many bytes each of these still had to fetch when the model was loaded, and
 *   what draws animations, as `frames`
 * @property {boolean} animates whether it draws animations of several `frames`
 * @property {number} defaultFrames how many frames suit it, where it does
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
function toEngineOptions({ model, device = 'auto', memoryMiB, workerUrl, wasmUrl }) {
  if (!['auto', 'gpu', 'cpu'].includes(device)) {
    throw new InkbloomError('bad-input', `\`device\` must be 'auto', 'gpu' or 'cpu', not '${device}'.`);
  }
  if (memoryMiB !== undefined && !(typeof memoryMiB === 'number' && memoryMiB > 0)) {
    throw new InkbloomError('bad-input', `\`memoryMiB\` must be a number above 0, not ${String(memoryMiB)}.`);
  }
  const page = pageAddress();
  /** @param {string | URL | undefined} url */
  const absolute = (url) => (url === undefined ? undefined : new URL(url, page).href);
  return { address: resolveModel(model, page), device, memoryMiB, workerUrl: absolute(workerUrl), wasmUrl: absolute(wasmUrl) };
}

/** A model on a device, ready to draw. Made by `Inkbloom.load`. */
export class Inkbloom {
  static models = models;

  #engine;
  #user;
  #disposal = new AbortController();

  /**
   * @param {Engine} engine
   * @param {import('./engine.js').Listener} user
   */
  constructor(engine, user) {
    this.#engine = engine;
    this.#user = user;
  }

  /**
   * Downloads a model once, keeps it in this browser, and brings it onto the device. Resolves when it can draw. Loads with
   * the same options share one engine; it is freed when all of them were disposed of.
   *
   * @param {LoadOptions} options
   * @returns {Promise<Inkbloom>}
   * @throws {InkbloomError}
   */
  static async load(options) {
    const { onProgress, signal, ...rest } = given(options);
    const engineOptions = toEngineOptions(rest);
    let ready = false;
    /** @type {import('./engine.js').Listener} */
    const user = (event) => {
      ready ||= event.phase === 'ready';
      tell(onProgress, event);
    };
    const engine = Engine.join(engineOptions, user);
    try {
      await untilAborted(engine.ready(), signal);
    } catch (error) {
      engine.leave(user);
      throw error;
    }
    // Another load had brought the model already.
    if (!ready) user({ phase: 'ready' });
    return new Inkbloom(engine, user);
  }

  /** @returns {ModelInfo} */
  get info() {
    const { default_steps, default_guidance, max_text_tokens, releases_text, repaints_only, default_frames, copies: _, ...rest } = this.#engine.loaded.info;
    return {
      ...rest,
      defaultSteps: default_steps,
      defaultGuidance: default_guidance,
      maxTextTokens: max_text_tokens,
      releasesText: releases_text,
      repaintsOnly: repaints_only,
      defaultFrames: default_frames,
    };
  }

  /** @returns {DeviceInfo} */
  get device() {
    return this.#engine.loaded.device;
  }

  /** Whether the model is stored in this browser, so that the next visit needs no download. */
  get stored() {
    return this.storageNote === undefined;
  }

  /** Why the model is not stored: a sentence for people. */
  get storageNote() {
    return this.#engine.loaded.storageNote;
  }

  /** Why the version that this browser has stored is used though the server has another one: a sentence for people. */
  get updateNote() {
    return this.#engine.loaded.updateNote;
  }

  /**
   * Draws. Calls wait for each other. After a lost device or a crash this call rejects and the next one starts the
   * engine anew, from the stored model; an engine that died without a word is started anew at once, and once.
   *
   * @param {GenerateOptions} options
   * @returns {Promise<Drawing>}
   * @throws {InkbloomError}
   */
  async generate(options) {
    this.#expectOpen();
    const request = toEngineRequest(options);
    const { signal, onStep } = options;
    return withAnyOf([signal, this.#disposal.signal], async (stop) => {
      const { drawing, ms } = await this.#engine.draw(request, ({ preview, ...event }) => {
        if (!stop.aborted) tell(onStep, preview ? { ...event, preview: toImageData(preview) } : event);
      }, stop);
      const { images, animations = [], timings, ...others } = drawing;
      return {
        ...others,
        images: images.map(toImageData),
        animations: animations.map((animation) => this.#toAnimation(animation)),
        timings: { textMs: timings.text_ms, denoiseMs: timings.denoise_ms, decodeMs: timings.decode_ms, totalMs: ms },
      };
    });
  }

  /**
   * Moves a finished picture along a path that closes. No model is asked, but its engine computes it.
   *
   * @param {import('./contract.js').Pixels} image an `ImageData`
   * @param {Pick<import('./options.js').Options, 'motion' | 'frames' | 'fps'>} options
   * @returns {Promise<Animation>}
   * @throws {InkbloomError}
   */
  async animate(image, options) {
    this.#expectOpen();
    const pixels = picture('image', image);
    if (!pixels) throw new InkbloomError('bad-input', 'There is no `image` to move: give an ImageData.');
    const { motion, frames, fps } = given(options);
    const checked = Object.entries(given({ motion, frames, fps })).map(([name, value]) => [name, plain(value)]);
    return this.#toAnimation(await this.#engine.work((session) => session.animate(pixels, Object.fromEntries(checked))));
  }

  /** @param {import('./contract.js').EngineAnimation} animation */
  #toAnimation({ frames, frame_ms }) {
    return new Animation(frames.map(toImageData), frame_ms, async (animation, save) => {
      this.#expectOpen();
      return this.#engine.work((session) => session.encode(animation, save));
    });
  }

  #expectOpen() {
    if (!this.#disposal.signal.aborted) return;
    throw new InkbloomError('bad-input', 'This Inkbloom was disposed of and cannot draw any more: call Inkbloom.load again.');
  }

  /** Stops what is being drawn and, when no other load shares the engine, frees the device. Stored weights stay. */
  async dispose() {
    this.#disposal.abort();
    await this.#engine.leave(this.#user);
  }
}
