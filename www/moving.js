import { byId, reveal } from './dom.js';
import { cutOut } from './sticker.js';
import { fileName } from './words.js';

/**
 * @typedef {import('./sticker.js').Sticker} Sticker
 * @typedef {import('./pkg/index.js').Animation} Animation
 * @typedef {NonNullable<import('./pkg/index.js').GenerateOptions['motion']>} Path
 * @typedef {Path | typeof DRAWN} Motion
 */

/** No path of the finished picture: the model draws every frame. */
const DRAWN = 'drawn';

/** What chat programs take as a moving sticker. */
const STICKER = { side: 512, maxBytes: 500_000 };

/** The kinds of files, by their buttons. @type {Record<string, { type: string, ending: string }>} */
const KINDS = {
  'save-moving-sticker': { type: 'image/webp', ending: '-sticker.webp' },
  'save-webp': { type: 'image/webp', ending: '.webp' },
  'save-gif': { type: 'image/gif', ending: '.gif' },
  'save-apng': { type: 'image/apng', ending: '.png' },
  'save-webm': { type: 'video/webm', ending: '.webm' },
};

/** Sets the picture on the stage in motion, and saves that. */
export class Moving {
  #open = byId('animate', HTMLButtonElement);
  #panel = byId('moving', HTMLDivElement);
  #motions = byId('motions', HTMLFieldSetElement);
  #drawn = byId('drawn', HTMLLabelElement);
  #drawnNote = byId('drawn-note', HTMLParagraphElement);
  #status = byId('moving-status', HTMLParagraphElement);
  #events;
  /** What is on the stage. @type {Sticker | undefined} */
  #sticker;
  /** What moves of it. @type {{ motion: Motion, animation: Animation } | undefined} */
  #playing;
  /** What is on its way. @type {AbortController | undefined} */
  #making;

  /**
   * @param {object} events
   * @param {(image: ImageData, motion: Path) => Promise<Animation>} events.animate
   * @param {(sticker: Sticker, signal: AbortSignal, onStep: (step: import('./pkg/index.js').Step) => void) => Promise<Animation>} events.draw
   * @param {(animation: Animation) => void} events.onPlay
   * @param {() => void} events.onStill the picture is to stand still again
   */
  constructor(events) {
    this.#events = events;
    this.#open.addEventListener('click', () => (this.#panel.hidden ? this.#begin() : this.#end()));
    this.#motions.addEventListener('change', () => this.#play());
    for (const id of Object.keys(KINDS)) byId(id, HTMLButtonElement).addEventListener('click', () => this.#save(id));
  }

  /** What the model can do. @param {import('./pkg/index.js').ModelInfo} info */
  offer({ animates, repaintsOnly, defaultFrames, downloads }) {
    const drawn = animates && !repaintsOnly;
    this.#drawn.hidden = this.#drawnNote.hidden = !drawn;
    const bytes = downloads.frames ?? 0;
    const fetched = bytes > 0 ? ` ${bytes < 1e6 ? 'Less than 1' : Math.round(bytes / 1e6)} MB more are fetched for it, once.` : '';
    this.#drawnNote.textContent = `“Drawn by the model” draws the words again, as ${defaultFrames} pictures that follow each other.${fetched}`;
    // Another model may lack what was chosen.
    const chosen = /** @type {HTMLInputElement} */ (this.#drawn.querySelector('input'));
    if (!drawn && chosen.checked) /** @type {HTMLInputElement} */ (this.#motions.querySelector('input')).checked = true;
  }

  /** Another picture is on the stage, and stands still. @param {Sticker} sticker */
  show(sticker) {
    this.#sticker = sticker;
    this.#close();
  }

  /** Something else is drawn on the stage. */
  rest() {
    if (!this.#panel.hidden) this.#end();
  }

  #begin() {
    this.#panel.hidden = false;
    this.#open.setAttribute('aria-expanded', 'true');
    this.#play();
  }

  #end() {
    this.#close();
    this.#events.onStill();
  }

  #close() {
    this.#making?.abort();
    this.#playing = undefined;
    this.#panel.hidden = true;
    this.#open.setAttribute('aria-expanded', 'false');
    this.#status.textContent = '';
  }

  get #motion() {
    return /** @type {Motion} */ (/** @type {HTMLInputElement} */ (this.#motions.querySelector('input:checked')).value);
  }

  async #play() {
    const [sticker, motion] = [this.#sticker, this.#motion];
    if (!sticker) return;
    this.#making?.abort();
    const making = new AbortController();
    this.#making = making;
    this.#status.textContent = '';
    try {
      const animation = await (motion === DRAWN ? this.#draw(sticker, making.signal) : this.#events.animate(sticker.image, motion));
      // Somebody may have chosen another by now.
      if (making.signal.aborted) return;
      this.#status.textContent = '';
      this.#playing = { motion, animation };
      this.#panel.dataset.playing = motion;
      this.#events.onPlay(animation);
      this.#offerFilm(animation);
    } catch (error) {
      if (making.signal.aborted) return;
      this.#status.textContent = error instanceof Error ? error.message : String(error);
    }
    reveal(this.#panel);
  }

  /**
   * @param {Sticker} sticker
   * @param {AbortSignal} signal
   */
  #draw(sticker, signal) {
    this.#status.textContent = 'Drawing the frames…';
    return this.#events.draw(sticker, signal, ({ step, steps }) => {
      this.#status.textContent = `Drawing the frames: step ${step} of ${steps}`;
    });
  }

  /** Few browsers encode films. @param {Animation} animation */
  async #offerFilm(animation) {
    byId('save-webm', HTMLButtonElement).hidden = !await animation.canSave('video/webm').catch(() => false);
  }

  /** @param {string} id of the button */
  async #save(id) {
    const [playing, sticker] = [this.#playing, this.#sticker];
    if (!playing || !sticker) return;
    const { type, ending } = KINDS[id];
    const button = byId(id, HTMLButtonElement);
    /** @type {string[]} */
    const notes = [];
    const onNote = (/** @type {string} */ note) => notes.push(`${note[0].toUpperCase()}${note.slice(1)}.`);
    button.disabled = true;
    this.#status.textContent = 'Making the file…';
    try {
      const cut = id === 'save-moving-sticker';
      const animation = cut ? await this.#largeCut(sticker, playing) : playing.animation;
      const file = await animation.toBlob(type, { onNote, ...(cut && STICKER) });
      // Firefox would have an APNG end in .apng, which few programs know; to all others it is a PNG.
      download(id === 'save-apng' ? file.slice(0, file.size, 'image/png') : file, `${fileName(sticker.words)}-${playing.motion}${ending}`);
      this.#status.textContent = [`Saved, ${Math.ceil(file.size / 1000)} KB.`, ...notes].join(' ');
    } catch (error) {
      this.#status.textContent = error instanceof Error ? error.message : String(error);
    }
    button.disabled = false;
  }

  /**
   * @param {Sticker} sticker
   * @param {{ motion: Motion, animation: Animation }} playing
   */
  async #largeCut({ image }, { motion, animation }) {
    return motion === DRAWN ? animation.map(largeCut) : this.#events.animate(await largeCut(image), motion);
  }
}

/** The picture large, with its white edge: what moves then is as sharp as what stands still. @param {ImageData} image */
async function largeCut(image) {
  const bitmap = await createImageBitmap((await cutOut(image)).sticker);
  const canvas = Object.assign(document.createElement('canvas'), { width: bitmap.width, height: bitmap.height });
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/**
 * @param {Blob} file
 * @param {string} name
 */
function download(file, name) {
  const link = Object.assign(document.createElement('a'), { href: URL.createObjectURL(file), download: name });
  link.click();
  // The browser has begun to read it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
