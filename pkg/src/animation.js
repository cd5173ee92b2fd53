import { InkbloomError } from './errors.js';
import { canEncode, filmSettings } from './film.js';
import { given } from './request.js';

/**
 * How an animation is saved.
 *
 * @typedef {object} SaveOptions
 * @property {number} [quality] of a WebP, 1 to 100; 80 when left out
 * @property {number} [side] scaled to fit a square of so many pixels, transparent where the picture is not one
 * @property {number} [maxBytes] the largest that the file may be; the quality of a WebP is lowered for it
 * @property {(note: string) => void} [onNote] gets a sentence for each thing worth telling, such as a lowered quality
 */

const FILM = 'video/webm';
const PICTURES = ['image/webp', 'image/apng', 'image/png', 'image/gif'];

const NUMBERS = /** @type {const} */ (['quality', 'side', 'maxBytes']);

/** Pictures that follow each other, again and again. */
export class Animation {
  #encode;

  /**
   * @param {ImageData[]} frames of one size
   * @param {number} frameMs
   * @param {(animation: import('./contract.js').EngineAnimation, save: import('./contract.js').EngineSave) => Promise<import('./contract.js').EngineFile>} encode
   */
  constructor(frames, frameMs, encode) {
    /** RGBA with straight alpha. */
    this.frames = frames;
    /** How long each is shown, in milliseconds. */
    this.frameMs = frameMs;
    this.#encode = encode;
  }

  /**
   * The same with other frames, of one size.
   *
   * @param {(frame: ImageData) => ImageData | Promise<ImageData>} change
   */
  async map(change) {
    return new Animation(await Promise.all(this.frames.map(change)), this.frameMs, this.#encode);
  }

  /**
   * Whether `toBlob` can make such a file here: a `video/webm` where the browser encodes VP9.
   *
   * @param {string} type
   */
  async canSave(type) {
    if (type !== FILM) return PICTURES.includes(type);
    const [{ width, height }] = this.frames;
    return canEncode(filmSettings(width, height, this.frameMs));
  }

  /**
   * A file with transparency that repeats for ever. A WebP is lossy and small; an APNG (`image/apng`) loses nothing; a GIF
   * has 256 colours, and pixels that are seen or not. A film (`video/webm`) plays once, has no options, and needs `canSave`.
   *
   * @param {string} [type] `image/webp`, `image/apng`, `image/gif` or `video/webm`
   * @param {SaveOptions} [options]
   * @returns {Promise<Blob>}
   * @throws {InkbloomError}
   */
  async toBlob(type = 'image/webp', options = {}) {
    const { onNote, ...rest } = given(options);
    for (const name of NUMBERS) {
      const value = rest[name];
      if (value === undefined || (Number.isFinite(value) && value >= 1 && (name === 'quality' || Number.isInteger(value)))) continue;
      throw new InkbloomError('bad-input', `\`${name}\` must be a ${name === 'quality' ? '' : 'whole '}number of at least 1, not ${String(value)}.`);
    }
    const { quality, side, maxBytes } = rest;
    if (type === FILM) return this.#film(NUMBERS.filter((name) => rest[name] !== undefined));
    // An ImageData's fields do not survive the way to the worker of every browser.
    const frames = this.frames.map(({ width, height, data }) => ({ width, height, data: /** @type {Uint8ClampedArray} */ (data) }));
    const file = await this.#encode({ frames, frame_ms: this.frameMs }, given({ type: String(type), quality, side, max_bytes: maxBytes }));
    for (const note of file.notes) onNote?.(note);
    return new Blob([file.bytes], { type: file.type });
  }

  /** @param {string[]} asked options that a film does not have */
  async #film(asked) {
    if (asked.length > 0) throw new InkbloomError('bad-input', `A WebM film is saved as it is; leave \`${asked[0]}\` out.`);
    if (!await this.canSave(FILM)) throw new InkbloomError('unsupported', 'This browser does not encode WebM films; save the animation as image/webp.');
    return (await import('./webm.js')).encode(this.frames, this.frameMs);
  }

  /**
   * Plays it on a canvas, which takes its size. Where people asked their system for reduced motion it shows the first frame.
   *
   * @param {HTMLCanvasElement} canvas
   * @returns {() => void} stops it
   */
  play(canvas) {
    const [{ width, height }] = this.frames;
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    let [shown, request] = [-1, 0];
    const still = globalThis.matchMedia?.('(prefers-reduced-motion: reduce)').matches ?? false;
    const began = performance.now();
    const show = () => {
      const now = still ? 0 : Math.floor((performance.now() - began) / this.frameMs) % this.frames.length;
      if (now !== shown) context?.putImageData(this.frames[now], 0, 0);
      shown = now;
      if (!still) request = requestAnimationFrame(show);
    };
    show();
    return () => cancelAnimationFrame(request);
  }
}
