/**
 * Turns pictures into files: in a worker where a canvas can be there, else on the page.
 *
 * @typedef {OffscreenCanvas | HTMLCanvasElement} Canvas
 * @typedef {{ make: (width: number, height: number) => Canvas, toPng: (canvas: Canvas) => Promise<Blob> }} Workbench
 */

/** @param {Workbench} workbench @param {ImageData} image */
function toCanvas({ make }, image) {
  const canvas = make(image.width, image.height);
  contextOf(canvas).putImageData(image, 0, 0);
  return canvas;
}

/** @param {Canvas} canvas */
function contextOf(canvas) {
  return /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
}

/** What messengers expect of a sticker. */
const STICKER_SIDE = 512;
const EDGE = 14;
/** Fainter pixels are a glow, not the thing: the scissors ignore them. */
const SOLID = 100;

/**
 * The picture large, cut out along its outline with a white edge.
 *
 * @param {Workbench} workbench
 * @param {ImageData} image
 */
function toSticker(workbench, image) {
  const scale = (STICKER_SIDE - 4 * EDGE) / Math.max(image.width, image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  const [left, top] = [(STICKER_SIDE - width) / 2, (STICKER_SIDE - height) / 2];

  const outline = new ImageData(image.width, image.height);
  for (let index = 0; index < image.data.length; index += 4) {
    outline.data.set([255, 255, 255, image.data[index + 3] >= SOLID ? 255 : 0], index);
  }
  const [paper, picture] = [outline, image].map((pixels) => toCanvas(workbench, pixels));

  const canvas = workbench.make(STICKER_SIDE, STICKER_SIDE);
  const context = contextOf(canvas);
  context.imageSmoothingQuality = 'high';
  for (let turn = 0; turn < 2 * Math.PI; turn += Math.PI / 16) {
    context.drawImage(paper, left + EDGE * Math.cos(turn), top + EDGE * Math.sin(turn), width, height);
  }
  context.drawImage(picture, left, top, width, height);
  return canvas;
}

/**
 * @param {Workbench} workbench
 * @param {ImageData} image
 * @returns {Promise<import('./sticker.js').Files>} PNGs with transparency
 */
export async function cut(workbench, image) {
  return { png: await workbench.toPng(toCanvas(workbench, image)), sticker: await workbench.toPng(toSticker(workbench, image)) };
}
