// A worker that turns pictures into files: gets an ImageData and a port, answers on the port.
import { cut } from './cut.js';

const workbench = {
  /** @param {number} width @param {number} height */
  make: (width, height) => new OffscreenCanvas(width, height),
  /** @param {import('./cut.js').Canvas} canvas */
  toPng: (canvas) => /** @type {OffscreenCanvas} */ (canvas).convertToBlob({ type: 'image/png' }),
};

addEventListener('message', async ({ data: image, ports: [port] }) => {
  port.postMessage(await cut(workbench, image).catch(() => undefined));
});
