/** How far back undo goes. */
const REMEMBERED = 20;
/** The page's violet, which few stickers have; how translucent it looks is the style sheet's. */
const PAINT = '#6d4df0';

/** The soft rim of a stroke, and what the eraser leaves of one, is no mark. */
const FAINT = 127;
/** Opaque, as four bytes of any order. */
const WHITE = 0xffffffff;
const BLACK = new Uint32Array(Uint8Array.of(0, 0, 0, 255).buffer)[0];

/** A layer over a picture, on which a person marks what is to be drawn anew. */
export class Brush {
  /** Diameter as a share of the layer's width. */
  size = 0.15;
  erases = false;
  /** How many pixels a side of what the model draws with one place of its latent. */
  cell = 8;
  /** What undo goes back to, latest last. @type {ImageData[]} */
  #past = [];

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {() => void} onChange
   */
  constructor(canvas, onChange) {
    this.canvas = canvas;
    this.context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d', { willReadFrequently: true }));
    this.onChange = onChange;
    canvas.addEventListener('pointerdown', (event) => {
      // The first finger paints; a second one would jump about.
      if (event.button !== 0 || this.#pointer !== undefined) return;
      canvas.setPointerCapture(event.pointerId);
      this.#pointer = event.pointerId;
      this.#past.push(this.#layer());
      this.#past.splice(0, this.#past.length - REMEMBERED);
      this.#last = this.#place(event);
      this.#stroke(event);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (event.pointerId !== this.#pointer) return;
      const parts = event.getCoalescedEvents?.() ?? [];
      for (const part of parts.length > 0 ? parts : [event]) this.#stroke(part);
    });
    for (const end of /** @type {const} */ (['pointerup', 'pointercancel'])) {
      canvas.addEventListener(end, (event) => {
        if (event.pointerId !== this.#pointer) return;
        this.#pointer = undefined;
        onChange();
      });
    }
  }

  /** The finger, pen or mouse that paints. @type {number | undefined} */
  #pointer;
  #last = { x: 0, y: 0 };

  #layer() {
    return this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  /** @param {PointerEvent} event */
  #place(event) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    return { x: ((event.clientX - left) / width) * this.canvas.width, y: ((event.clientY - top) / height) * this.canvas.height };
  }

  /** @param {PointerEvent} event */
  #stroke(event) {
    const { context } = this;
    const here = this.#place(event);
    context.globalCompositeOperation = this.erases ? 'destination-out' : 'source-over';
    context.strokeStyle = PAINT;
    context.fillStyle = PAINT;
    context.lineWidth = this.size * this.canvas.width;
    context.beginPath();
    context.moveTo(this.#last.x, this.#last.y);
    context.lineTo(here.x, here.y);
    context.stroke();
    // A line without length leaves nothing; the dot is also the line's round end.
    context.beginPath();
    context.arc(here.x, here.y, context.lineWidth / 2, 0, 2 * Math.PI);
    context.fill();
    this.#last = here;
  }

  undo() {
    const before = this.#past.pop();
    if (before) this.context.putImageData(before, 0, 0);
    this.onChange();
  }

  clear() {
    this.#past.push(this.#layer());
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.onChange();
  }

  /**
   * An empty layer of that many pixels.
   *
   * @param {number} width
   * @param {number} height
   */
  begin(width, height) {
    Object.assign(this.canvas, { width, height });
    this.#past = [];
    this.onChange();
  }

  /**
   * White where it is marked, black elsewhere; nothing where nothing is marked. Models draw in cells
   * and look at one pixel of each: a cell that is touched is marked whole, so that no mark is too small to act.
   *
   * @returns {ImageData | undefined}
   */
  mask() {
    const { cell } = this;
    const { width, height, data } = this.#layer();
    const mask = new ImageData(width, height);
    const pixels = new Uint32Array(mask.data.buffer).fill(BLACK);
    let marked = false;
    for (let y = 0; y < height; y += 1) {
      for (let x = 0; x < width; x += 1) {
        if (data[(y * width + x) * 4 + 3] <= FAINT) continue;
        const left = x - (x % cell);
        const top = y - (y % cell);
        // Where a pixel of this cell was met before, it is white already.
        if (pixels[top * width + left] === WHITE) continue;
        for (let row = top; row < Math.min(top + cell, height); row += 1) pixels.fill(WHITE, row * width + left, row * width + Math.min(left + cell, width));
        marked = true;
      }
    }
    return marked ? mask : undefined;
  }
}
