/**
 * One picture of this visit, with what it takes to draw it again.
 *
 * @typedef {object} Sticker
 * @property {ImageData} image
 * @property {string} prompt as it was typed
 * @property {string} style
 * @property {string} seed
 * @property {Record<string, string>} settings the advanced ones, as they stood in the form
 * @property {boolean} fromPicture its recipe alone does not draw it again
 * @property {string} [note] for example which picture of several
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {ImageData} image
 */
export function paint(canvas, image) {
  canvas.width = image.width;
  canvas.height = image.height;
  canvas.getContext('2d')?.putImageData(image, 0, 0);
}

/**
 * The files of a picture: as it was drawn, and cut out as a sticker.
 *
 * @typedef {{ png: Blob, sticker: Blob }} Files
 */

const scissors = new Worker(new URL('./scissors.js', import.meta.url), { type: 'module' });

/**
 * Encoding takes longer than the main thread has: a worker does it.
 *
 * @param {ImageData} image
 * @returns {Promise<Files>}
 */
export function cutOut(image) {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = ({ data }) => resolve(data);
    scissors.postMessage(image, [port2]);
  });
}
