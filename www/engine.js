import { Inkbloom } from './pkg/index.js';

/** The model on a device: loaded when it is first wanted, and again after it failed. */
export class Engine {
  /** What is loading or loaded. @type {{ promise: Promise<Inkbloom>, abort: AbortController, ready: boolean } | undefined} */
  #current;
  #options;

  /**
   * @param {object} options
   * @param {string} options.model
   * @param {() => import('./pkg/index.js').DeviceChoice} options.device
   * @param {Promise<void>} options.after what loading waits for
   * @param {(event: import('./pkg/index.js').Progress) => void} options.onProgress
   * @param {(ink: Inkbloom) => void} options.onReady
   * @param {(error: unknown) => void} options.onFailure also told of a load that was stopped
   */
  constructor(options) {
    this.#options = options;
  }

  get loading() {
    return this.#current !== undefined && !this.#current.ready;
  }

  /** @returns {Promise<Inkbloom>} */
  load() {
    if (this.#current) return this.#current.promise;
    const { model, device, after, onProgress, onReady, onFailure } = this.#options;
    const abort = new AbortController();
    onProgress({ phase: 'start' });
    const current = { promise: after.then(() => Inkbloom.load({ model, device: device(), signal: abort.signal, onProgress })), abort, ready: false };
    this.#current = current;
    current.promise.then(
      (ink) => {
        current.ready = true;
        if (this.#current === current) onReady(ink);
      },
      (error) => {
        if (this.#current !== current) return;
        this.#current = undefined;
        onFailure(error);
      },
    );
    return current.promise;
  }

  /** Stops the download, if there is one. What came whole is kept. */
  stop() {
    if (this.loading) this.#current?.abort.abort();
  }

  /** Gives the device away, for another. */
  drop() {
    const old = this.#current;
    this.#current = undefined;
    old?.abort.abort();
    old?.promise.then((ink) => ink.dispose(), () => {});
  }
}
