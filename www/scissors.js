// A worker that turns pictures into files: gets an ImageData and a port, answers on the port.

/**
 * @param {ImageData} image
 * @returns {Promise<Blob>} a PNG with its transparency
 */
async function toPng(image) {
  const canvas = new OffscreenCanvas(image.width, image.height);
  canvas.getContext('2d')?.putImageData(image, 0, 0);
  return canvas.convertToBlob({ type: 'image/png' });
}

/** What messengers expect of a sticker. */
const STICKER_SIDE = 512;
const EDGE = 14;
/** Fainter pixels are a glow, not the thing: the scissors ignore them. */
const SOLID = 100;

/**
 * The picture large, cut out along its outline with a white edge.
 *
 * @param {ImageData} image
 * @returns {Promise<Blob>} a PNG with transparency
 */
async function toStickerPng(image) {
  const scale = (STICKER_SIDE - 4 * EDGE) / Math.max(image.width, image.height);
  const [width, height] = [image.width * scale, image.height * scale];
  const [left, top] = [(STICKER_SIDE - width) / 2, (STICKER_SIDE - height) / 2];

  const outline = new ImageData(image.width, image.height);
  for (let index = 0; index < image.data.length; index += 4) {
    outline.data.set([255, 255, 255, image.data[index + 3] >= SOLID ? 255 : 0], index);
  }
  const [paper, picture] = [outline, image].map((pixels) => {
    const canvas = new OffscreenCanvas(pixels.width, pixels.height);
    canvas.getContext('2d')?.putImageData(pixels, 0, 0);
    return canvas;
  });

  const canvas = new OffscreenCanvas(STICKER_SIDE, STICKER_SIDE);
  const context = /** @type {OffscreenCanvasRenderingContext2D} */ (canvas.getContext('2d'));
  context.imageSmoothingQuality = 'high';
  for (let turn = 0; turn < 2 * Math.PI; turn += Math.PI / 16) {
    context.drawImage(paper, left + EDGE * Math.cos(turn), top + EDGE * Math.sin(turn), width, height);
  }
  context.drawImage(picture, left, top, width, height);
  return canvas.convertToBlob({ type: 'image/png' });
}

addEventListener('message', async ({ data: image, ports: [port] }) => {
  /** @type {import('./sticker.js').Files} */
  const files = { png: await toPng(image), sticker: await toStickerPng(image) };
  port.postMessage(files);
});
