import { Inkbloom, describeProgress } from './index.js';

/**
 * `<ink-bloom model="/models/sticker/" prompt="3d emoji of a red apple"></ink-bloom>`
 *
 * Attributes: `model`, `prompt`, `negative-prompt`, `seed`, `steps`, `guidance`, `width`, `height`, `device`,
 * `worker-url`, `wasm-url`, and `controls` (a box to type in). It draws when it has a prompt and again when the
 * prompt or the seed changes. Elements of the same model share one engine.
 *
 * Events (they bubble; `detail` in brackets): `ink-progress` (Progress), `ink-step` (Step), `ink-image` (Drawing),
 * `ink-error` (InkbloomError).
 */

/** A page's Content-Security-Policy may forbid inline styles; a constructed sheet is always allowed. */
const sheet = new CSSStyleSheet();
sheet.replaceSync(`
  :host { display: inline-block; inline-size: 16rem; max-inline-size: 100%; font: inherit; color: inherit; }
  :host([hidden]) { display: none; }
  canvas { display: block; inline-size: 100%; aspect-ratio: 1; object-fit: contain; border-radius: .75rem; }
  canvas:not(.drawn) { background: color-mix(in srgb, currentColor 6%, transparent); }
  form { display: flex; gap: .5rem; margin-block-start: .5rem; }
  input { flex: 1; min-inline-size: 0; }
  input, button { font: inherit; padding: .5rem .75rem; border-radius: .5rem; border: 1px solid color-mix(in srgb, currentColor 40%, transparent); background: transparent; color: inherit; }
  button { cursor: pointer; }
  p { margin: .5rem 0 0; font-size: .875em; min-block-size: 1.4em; }
`);

/** @typedef {{ loading: Promise<Inkbloom>, users: Set<InkBloomElement> }} Shared */

/** One engine per model and device, whatever the number of elements. @type {Map<string, Shared>} */
const engines = new Map();

/** Attributes that are numbers, as options of `generate`. */
const NUMBERS = /** @type {const} */ (['steps', 'guidance', 'width', 'height']);

export class InkBloomElement extends HTMLElement {
  static observedAttributes = ['model', 'prompt', 'seed', 'controls'];

  #canvas = document.createElement('canvas');
  #status = document.createElement('p');
  #form = document.createElement('form');
  #input = document.createElement('input');
  #button = document.createElement('button');
  /** @type {AbortController | undefined} */
  #drawing;
  /** The engine in use, by its key in `engines`. @type {string | undefined} */
  #engine;
  #scheduled = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [sheet];
    for (const [name, element] of Object.entries({ canvas: this.#canvas, form: this.#form, input: this.#input, button: this.#button, status: this.#status })) {
      element.setAttribute('part', name);
    }
    this.#canvas.setAttribute('role', 'img');
    this.#status.setAttribute('role', 'status');
    this.#input.setAttribute('aria-label', 'What to draw');
    this.#button.textContent = 'Draw';
    this.#form.append(this.#input, this.#button);
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#drawing) this.cancel();
      else this.prompt = this.#input.value;
    });
    root.append(this.#canvas, this.#form, this.#status);
  }

  get prompt() {
    return this.getAttribute('prompt') ?? '';
  }

  set prompt(text) {
    this.setAttribute('prompt', text);
  }

  connectedCallback() {
    this.#schedule();
  }

  disconnectedCallback() {
    // An element that is only moved is connected again before this runs.
    queueMicrotask(() => {
      if (this.isConnected) return;
      this.cancel();
      this.#release();
    });
  }

  attributeChangedCallback() {
    this.#schedule();
  }

  /**
   * Draws the prompt as the attributes stand now, in place of what is being drawn.
   *
   * @returns {Promise<import('./index.js').Drawing>}
   * @throws {import('./index.js').InkbloomError}
   */
  async draw() {
    this.cancel();
    const controller = new AbortController();
    this.#drawing = controller;
    this.#button.textContent = 'Cancel';
    try {
      const ink = await this.#ink();
      const drawing = await ink.generate({
        ...this.#options(),
        signal: controller.signal,
        onStep: (step) => {
          this.#say(`Step ${step.step} of ${step.steps}`);
          if (step.preview) this.#paint(step.preview);
          this.#emit('ink-step', step);
        },
      });
      this.#paint(drawing.images[0]);
      this.#canvas.setAttribute('aria-label', this.prompt);
      this.#say(drawing.warnings.join(' '));
      this.#emit('ink-image', drawing);
      return drawing;
    } catch (error) {
      // A drawing that a newer one replaced says nothing: the newer one is speaking.
      if (this.#drawing === controller) this.#say(error instanceof Error ? error.message : String(error));
      this.#emit('ink-error', error);
      throw error;
    } finally {
      if (this.#drawing === controller) {
        this.#drawing = undefined;
        this.#button.textContent = 'Draw';
      }
    }
  }

  cancel() {
    this.#drawing?.abort();
  }

  /** Attributes often change several at a time: one drawing for all of them. */
  #schedule() {
    this.#form.hidden = !this.hasAttribute('controls');
    if (this.#input.value === '') this.#input.value = this.prompt;
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      // What goes wrong is shown and told by `ink-error`.
      if (this.isConnected && this.hasAttribute('model') && this.prompt !== '') this.draw().catch(() => {});
    });
  }

  /** @returns {import('./index.js').GenerateOptions} */
  #options() {
    /** @type {import('./index.js').GenerateOptions} */
    const options = { prompt: this.prompt };
    const negative = this.getAttribute('negative-prompt');
    if (negative !== null) options.negativePrompt = negative;
    const seed = this.getAttribute('seed');
    if (seed !== null) options.seed = seed;
    for (const name of NUMBERS) {
      const value = this.getAttribute(name);
      if (value !== null) options[name] = Number(value);
    }
    return options;
  }

  /** @returns {Promise<Inkbloom>} */
  #ink() {
    const options = {
      model: this.getAttribute('model') ?? '',
      device: /** @type {import('./index.js').DeviceChoice} */ (this.getAttribute('device') ?? 'auto'),
      workerUrl: this.getAttribute('worker-url') ?? undefined,
      wasmUrl: this.getAttribute('wasm-url') ?? undefined,
    };
    const key = JSON.stringify(options);
    if (key !== this.#engine) this.#release();
    let shared = engines.get(key);
    if (!shared) {
      /** @type {Set<InkBloomElement>} */
      const users = new Set();
      const loading = Inkbloom.load({
        ...options,
        onProgress: (event) => users.forEach((element) => element.#progress(event)),
      });
      // The next try starts afresh.
      loading.catch(() => engines.delete(key));
      shared = { loading, users };
      engines.set(key, shared);
    }
    shared.users.add(this);
    this.#engine = key;
    return shared.loading;
  }

  #release() {
    const key = this.#engine;
    const shared = key === undefined ? undefined : engines.get(key);
    this.#engine = undefined;
    if (key === undefined || !shared) return;
    shared.users.delete(this);
    if (shared.users.size > 0) return;
    engines.delete(key);
    shared.loading.then((ink) => ink.dispose(), () => {});
  }

  /** @param {import('./index.js').Progress} event */
  #progress(event) {
    this.#say(describeProgress(event).text);
    this.#emit('ink-progress', event);
  }

  /** @param {ImageData} image */
  #paint(image) {
    this.#canvas.width = image.width;
    this.#canvas.height = image.height;
    this.#canvas.style.aspectRatio = `${image.width} / ${image.height}`;
    this.#canvas.classList.add('drawn');
    this.#canvas.getContext('2d')?.putImageData(image, 0, 0);
  }

  /** @param {string} text */
  #say(text) {
    this.#status.textContent = text;
  }

  /**
   * @param {string} name
   * @param {unknown} detail
   */
  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

if (!customElements.get('ink-bloom')) customElements.define('ink-bloom', InkBloomElement);
