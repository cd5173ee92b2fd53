/**
 * One picture of this visit, with what it takes to draw it again.
 *
 * @typedef {object} Sticker
 * @property {ImageData} image
 * @property {string} prompt as it was typed
 * @property {string} style
 * @property {string} seed
 * @property {string} [note] for example which picture of several
 */

/**
 * The words that the model gets: it was trained on captions like "3d emoji of a red apple".
 *
 * @param {string} style
 * @param {string} prompt
 */
export function withStyle(style, prompt) {
  const words = prompt.trim().replace(/\s+/g, ' ');
  if (style === '' || words === '' || /\b(emoji|icon|sticker) of\b/i.test(words)) return words;
  return `${style} of ${words}`;
}

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
 * @param {ImageData} image
 * @returns {Promise<Blob>} a PNG with its transparency
 */
export async function toPng(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext('2d')?.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** @param {string} prompt */
export function fileName(prompt) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60);
  return `${words || 'inkbloom'}.png`;
}
