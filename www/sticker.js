import { cut } from './cut.js';

/**
 * One picture, with what it takes to draw it again.
 *
 * @typedef {object} Sticker
 * @property {ImageData} image
 * @property {string} prompt as it was typed
 * @property {string} words as the model was given them
 * @property {string} style
 * @property {string} seed
 * @property {Record<string, string>} settings the advanced ones, as they stood in the form
 * @property {boolean} fromPicture its recipe alone does not draw it again
 * @property {number} picture which of its drawing, from 1
 * @property {number} pictures how many its drawing has
 */

/** What tells it from its like. @param {Sticker} sticker */
export function recipeLine({ seed, picture, pictures }) {
  return `seed ${seed}${pictures > 1 ? `, picture ${picture} of ${pictures}` : ''}`;
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
 * The files of a picture: as it was drawn, and cut out as a sticker.
 *
 * @typedef {{ png: Blob, sticker: Blob }} Files
 */

/** @type {{ worker: Worker, broken: Promise<never> } | undefined} */
let scissors;

function startScissors() {
  const worker = new Worker(new URL('./scissors.js', import.meta.url), { type: 'module' });
  /** @type {Promise<never>} */
  const broken = new Promise((_, reject) => {
    worker.onerror = () => {
      scissors = undefined;
      reject(new Error('The worker did not start.'));
    };
  });
  broken.catch(() => {});
  return { worker, broken };
}

/** @param {ImageData} image @returns {Promise<Files>} */
async function cutInWorker(image) {
  if (typeof OffscreenCanvas === 'undefined') throw new Error('There are no canvases in workers here.');
  scissors ??= startScissors();
  const { worker, broken } = scissors;
  const { port1, port2 } = new MessageChannel();
  /** @type {Promise<Files | undefined>} */
  const answer = new Promise((resolve) => { port1.onmessage = ({ data }) => resolve(data); });
  worker.postMessage(image, [port2]);
  const files = await Promise.race([answer, broken]);
  if (!files) throw new Error('The worker could not draw.');
  return files;
}

const onPage = {
  /** @param {number} width @param {number} height */
  make: (width, height) => Object.assign(document.createElement('canvas'), { width, height }),
  /** @param {import('./cut.js').Canvas} canvas @returns {Promise<Blob>} */
  toPng: (canvas) => new Promise((resolve, reject) => {
    /** @type {HTMLCanvasElement} */ (canvas).toBlob((blob) => (blob ? resolve(blob) : reject(new Error('The browser gave no PNG.'))), 'image/png');
  }),
};

/**
 * Encoding takes longer than the main thread has: a worker does it, where one can.
 *
 * @param {ImageData} image
 * @returns {Promise<Files>}
 */
export async function cutOut(image) {
  try {
    return await cutInWorker(image);
  } catch {
    return cut(onPage, image);
  }
}
