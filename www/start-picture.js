import { Brush } from './brush.js';
import { byId, reveal } from './dom.js';

/** The picture that a drawing starts from, if there is one: how it gets in, and what of it may change. */
export class StartPicture {
  /** As it came. @type {ImageBitmap | undefined} */
  #source;
  /** What the model draws, in pixels. @type {[number, number]} */
  #size = [128, 128];

  #root = byId('start', HTMLDetailsElement);
  #board = byId('start-board', HTMLDivElement);
  #file = byId('start-file', HTMLInputElement);
  #canvas = byId('start-canvas', HTMLCanvasElement);
  #strength = byId('strength', HTMLInputElement);
  #legend = byId('strength-words', HTMLParagraphElement);
  #status = byId('start-status', HTMLParagraphElement);
  #brush = new Brush(byId('start-mark', HTMLCanvasElement), () => this.#describe());

  constructor() {
    const erase = byId('mark-erase', HTMLButtonElement);
    const size = byId('mark-size', HTMLInputElement);
    this.#file.addEventListener('change', () => this.#open(this.#file.files?.[0]));
    this.#strength.addEventListener('input', () => this.#describe());
    size.addEventListener('input', () => { this.#brush.size = Number(size.value) / 100; });
    erase.addEventListener('click', () => {
      this.#brush.erases = !this.#brush.erases;
      erase.setAttribute('aria-pressed', String(this.#brush.erases));
    });
    byId('mark-undo', HTMLButtonElement).addEventListener('click', () => this.#brush.undo());
    byId('mark-clear', HTMLButtonElement).addEventListener('click', () => this.#brush.clear());
    byId('start-remove', HTMLButtonElement).addEventListener('click', () => this.remove());

    document.addEventListener('dragover', (event) => {
      if (event.dataTransfer?.types.includes('Files')) event.preventDefault();
    });
    document.addEventListener('drop', (event) => {
      if (!event.dataTransfer?.types.includes('Files')) return;
      event.preventDefault();
      this.#open(event.dataTransfer.files[0]);
    });
    document.addEventListener('paste', (event) => {
      const file = event.clipboardData?.files[0];
      if (file) this.#open(file);
    });
  }

  /** @param {string} text */
  #say(text) {
    this.#status.textContent = text;
    this.#root.open = true;
    reveal(this.#root);
  }

  /** @param {File | undefined} file */
  async #open(file) {
    if (!file) return;
    try {
      await this.take(file);
    } catch {
      this.#say(`“${file.name}” is no picture that this browser can open. Try a PNG or JPEG file.`);
      return;
    } finally {
      this.#file.value = '';
    }
    const { width, height } = /** @type {ImageBitmap} */ (this.#source);
    const [across, down] = this.#size;
    this.#say(width === across && height === down ? 'Your picture is on the board.' : `Your picture (${width} × ${height}) was fitted into ${across} × ${down}.`);
  }

  /**
   * Starts from this picture.
   *
   * @param {Blob | ImageData} picture
   */
  async take(picture) {
    const source = await createImageBitmap(picture);
    this.#source?.close();
    this.#source = source;
    this.#place();
    this.#board.hidden = false;
    this.#say('Say above what it shall become; paint over it to change only a part.');
  }

  remove() {
    this.#source?.close();
    this.#source = undefined;
    this.#board.hidden = true;
    this.#say('The picture is put away; the words alone are drawn.');
  }

  /**
   * Tells what size the model draws.
   *
   * @param {number} width
   * @param {number} height
   */
  fit(width, height) {
    if (width === this.#size[0] && height === this.#size[1]) return;
    this.#size = [width, height];
    if (this.#source) this.#place();
  }

  /** @param {number} side of the squares that the model changes whole, in pixels */
  set cell(side) {
    this.#brush.cell = side;
  }

  /** The whole picture, undistorted, in the middle. */
  #place() {
    const source = /** @type {ImageBitmap} */ (this.#source);
    const [width, height] = this.#size;
    const scale = Math.min(width / source.width, height / source.height);
    const [across, down] = [source.width * scale, source.height * scale];
    Object.assign(this.#canvas, { width, height });
    const context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext('2d'));
    context.imageSmoothingQuality = 'high';
    context.drawImage(source, (width - across) / 2, (height - down) / 2, across, down);
    this.#brush.begin(width, height);
  }

  #describe() {
    const where = this.#brush.mask() ? 'of what is marked' : 'of the whole picture';
    this.#legend.textContent = `${this.#strength.value} % ${where}`;
  }

  /** Shows where a picture comes in, for a model that cannot do without. */
  open() {
    this.#root.open = true;
  }

  /** What a drawing is told: nothing where it starts from words alone. */
  options() {
    if (!this.#source) return {};
    const context = /** @type {CanvasRenderingContext2D} */ (this.#canvas.getContext('2d'));
    const mask = this.#brush.mask();
    return {
      init: context.getImageData(0, 0, this.#canvas.width, this.#canvas.height),
      strength: Number(this.#strength.value) / 100,
      ...(mask && { mask }),
    };
  }
}
