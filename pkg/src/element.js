import { Inkbloom, describeProgress } from './index.js';

/**
 * `<ink-bloom model="/models/sticker/" prompt="3d emoji of a red apple"></ink-bloom>`
 *
 * Attributes: `model`, `prompt`, `negative-prompt`, `seed`, `steps`, `guidance`, `width`, `height`, `motion`,
 * `frames`, `fps`, `device`,
 * `worker-url`, `wasm-url`, and `controls` (a box to type in; `controls="false"` is none). An empty attribute counts as
 * left out. `motion="drawn"` has the model draw the frames, where it can. It draws when it has a prompt and again when the model, the prompt, the seed or what moves changes. What moves is played, or
 * stands still for people who asked their system for reduced motion. Elements of the same
 * model share one engine.
 *
 * Events (they bubble; `detail` in brackets): `ink-progress` (Progress), `ink-step` (Step), `ink-image` (Drawing),
 * `ink-error` (InkbloomError).
 */

const STYLE = `
  :host { display: inline-block; inline-size: 16rem; max-inline-size: 100%; font: inherit; color: inherit; }
  :host([hidden]), form[hidden] { display: none; }
  canvas { display: block; inline-size: 100%; aspect-ratio: 1; object-fit: contain; border-radius: .75rem; }
  canvas:not(.drawn) { background: color-mix(in srgb, currentColor 6%, transparent); }
  form { display: flex; gap: .5rem; margin-block-start: .5rem; }
  input { flex: 1; min-inline-size: 0; }
  input, button { font: inherit; padding: .5rem .75rem; border-radius: .5rem; border: 1px solid color-mix(in srgb, currentColor 40%, transparent); background: transparent; color: inherit; }
  button { cursor: pointer; }
  p { margin: .5rem 0 0; font-size: .875em; min-block-size: 1.4em; }
`;

/** A page's Content-Security-Policy may forbid inline styles; a constructed sheet is always allowed. @type {CSSStyleSheet | undefined} */
let sheet;
function styleSheet() {
  if (!sheet) {
    sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
  }
  return sheet;
}

/** On a server there are no elements: there this module only may be imported. */
const Base = globalThis.HTMLElement ?? class {};

/** Attributes that are numbers, as options of `generate`. */
const NUMBERS = /** @type {const} */ (['steps', 'guidance', 'width', 'height', 'frames', 'fps']);

/** The motion that no path makes: the model draws every frame. */
const DRAWN = 'drawn';

/** What makes another picture when it changes. */
const RECIPE = ['model', 'prompt', 'seed', 'motion', 'frames', 'fps'];

export class InkBloomElement extends Base {
  static observedAttributes = [...RECIPE, 'controls'];

  #canvas = document.createElement('canvas');
  #status = document.createElement('p');
  #form = document.createElement('form');
  #input = document.createElement('input');
  #button = document.createElement('button');
  /** @type {AbortController | undefined} */
  #drawing;
  /** The engine in use. @type {{ key: string, loading: Promise<Inkbloom>, abort: AbortController, ready: boolean } | undefined} */
  #engine;
  /** What is drawn or being drawn: what made it, as one string. @type {string | undefined} */
  #drawn;
  #scheduled = false;
  /** Ends what is played. */
  #stop = () => {};

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open' });
    root.adoptedStyleSheets = [styleSheet()];
    for (const [name, element] of Object.entries({ canvas: this.#canvas, form: this.#form, input: this.#input, button: this.#button, status: this.#status })) {
      element.setAttribute('part', name);
    }
    this.#canvas.setAttribute('role', 'img');
    this.#status.setAttribute('role', 'status');
    this.#input.setAttribute('aria-label', 'What to draw');
    this.#button.textContent = 'Draw';
    this.#form.append(this.#input, this.#button);
    this.#form.hidden = true;
    this.#form.addEventListener('submit', (event) => {
      event.preventDefault();
      if (this.#drawing) return this.cancel();
      this.prompt = this.#input.value;
      // The same prompt, too, is worth another picture.
      this.#drawn = undefined;
      return this.#schedule();
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
      // What is stopped here is drawn when the element comes back; what was drawn is still there.
      if (this.#drawing) this.#drawn = undefined;
      this.cancel();
      this.#release();
    });
  }

  /**
   * @param {string} name
   * @param {string | null} before
   * @param {string | null} now
   */
  attributeChangedCallback(name, before, now) {
    if (name === 'controls') this.#form.hidden = !this.#hasControls();
    if (name === 'prompt' && now !== before) this.#input.value = now ?? '';
    this.#schedule();
  }

  /**
   * Draws the prompt as the attributes stand now, in place of what is being drawn.
   *
   * @returns {Promise<import('./index.js').Drawing>}
   * @throws {import('./index.js').InkbloomError}
   */
  async draw() {
    this.#drawing?.abort();
    const controller = new AbortController();
    this.#drawing = controller;
    this.#drawn = this.#recipe();
    this.#button.textContent = 'Cancel';
    try {
      const ink = await this.#load();
      const drawing = await ink.generate({
        ...this.#options(ink.info.defaultFrames),
        signal: controller.signal,
        onStep: (step) => {
          this.#say(`Step ${step.step} of ${step.steps}`);
          if (step.preview) this.#paint(step.preview);
          this.#emit('ink-step', step);
        },
      });
      this.#paint(drawing.images[0]);
      this.#stop = drawing.animations[0]?.play(this.#canvas) ?? this.#stop;
      this.#canvas.setAttribute('aria-label', this.prompt);
      this.#say([...drawing.warnings, ink.updateNote ?? ''].join(' '));
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
    // What is drawn for is not waited for either.
    if (this.#engine && !this.#engine.ready) this.#release();
  }

  /** Attributes often change several at a time: one drawing for all of them, and none if they say what was drawn. */
  #schedule() {
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      if (!this.isConnected || this.#given('model') === undefined || this.prompt.trim() === '' || this.#recipe() === this.#drawn) return;
      // What goes wrong is shown and told by `ink-error`.
      this.draw().catch(() => {});
    });
  }

  #recipe() {
    return JSON.stringify(RECIPE.map((name) => this.#given(name)));
  }

  #hasControls() {
    return this.hasAttribute('controls') && this.getAttribute('controls') !== 'false';
  }

  /**
   * An attribute's value; templates leave empty what they have no value for.
   *
   * @param {string} name
   * @returns {string | undefined}
   */
  #given(name) {
    return this.getAttribute(name)?.trim() || undefined;
  }

  /** @param {number} frames of what the model draws moving, where nobody says @returns {import('./index.js').GenerateOptions} */
  #options(frames) {
    /** @type {import('./index.js').GenerateOptions} */
    const options = { prompt: this.prompt, negativePrompt: this.#given('negative-prompt'), seed: this.#given('seed') };
    const motion = this.#given('motion');
    if (motion === DRAWN) options.frames = frames;
    // The core says which there are.
    else if (motion !== undefined) options.motion = /** @type {import('./index.js').GenerateOptions['motion']} */ (motion);
    for (const name of NUMBERS) {
      const value = this.#given(name);
      if (value !== undefined) options[name] = Number(value);
    }
    return options;
  }

  /** @returns {Promise<Inkbloom>} */
  #load() {
    const options = {
      model: this.#given('model') ?? '',
      device: /** @type {import('./index.js').DeviceChoice | undefined} */ (this.#given('device')),
      workerUrl: this.#given('worker-url'),
      wasmUrl: this.#given('wasm-url'),
    };
    const key = JSON.stringify(options);
    if (this.#engine?.key === key) return this.#engine.loading;
    this.#release();
    const abort = new AbortController();
    const loading = Inkbloom.load({ ...options, signal: abort.signal, onProgress: (event) => this.#progress(event) });
    const engine = { key, loading, abort, ready: false };
    this.#engine = engine;
    loading.then(
      () => {
        engine.ready = true;
      },
      () => {
        // The next try starts afresh.
        if (this.#engine === engine) this.#engine = undefined;
      },
    );
    return loading;
  }

  #release() {
    const engine = this.#engine;
    this.#engine = undefined;
    engine?.abort.abort();
    engine?.loading.then((ink) => ink.dispose(), () => {});
  }

  /** @param {import('./index.js').Progress} event */
  #progress(event) {
    this.#say(describeProgress(event).text);
    this.#emit('ink-progress', event);
  }

  /** @param {ImageData} image */
  #paint(image) {
    this.#stop();
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

if (globalThis.customElements && !customElements.get('ink-bloom')) customElements.define('ink-bloom', InkBloomElement);
