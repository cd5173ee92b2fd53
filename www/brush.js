/** How far back undo goes. */
const REMEMBERED = 20;
/** The page's violet, which few stickers have; how translucent it looks is the style sheet's. */
const PAINT = '#6d4df0';

/** A layer over a picture, on which a person marks what is to be drawn anew. */
export class Brush {
  /** Diameter as a share of the layer's width. */
  size = 0.15;
  erases = false;
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
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.#past.push(this.#layer());
      this.#past.splice(0, this.#past.length - REMEMBERED);
      this.#last = this.#place(event);
      this.#stroke(event);
    });
    canvas.addEventListener('pointermove', (event) => {
      if (canvas.hasPointerCapture(event.pointerId)) for (const part of event.getCoalescedEvents?.() ?? [event]) this.#stroke(part);
    });
    canvas.addEventListener('pointerup', onChange);
  }

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
    context.lineCap = 'round';
    context.lineWidth = this.size * this.canvas.width;
    context.beginPath();
    context.moveTo(this.#last.x, this.#last.y);
    context.lineTo(here.x, here.y);
    context.stroke();
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

  /** White where it is marked, black elsewhere; nothing where nothing is marked. @returns {ImageData | undefined} */
  mask() {
    const mask = this.#layer();
    let marked = false;
    for (let index = 0; index < mask.data.length; index += 4) {
      const white = mask.data[index + 3] > 127;
      marked ||= white;
      mask.data.fill(white ? 255 : 0, index, index + 3);
      mask.data[index + 3] = 255;
    }
    return marked ? mask : undefined;
  }
}
