// Files of moving pictures, opened again by the browser.

/**
 * What a browser makes of a file.
 *
 * @typedef {{ type: string, size: number, side: number, frames: number, loops: number, times: number[], alphas: number[], hashes: number }} Seen
 */

/**
 * Opens an animation by the browser's own decoder. `alphas` are the different alphas of all frames, `hashes` counts frames
 * that differ.
 *
 * @param {import('./lab.js').Evaluates} page of either driver
 * @param {number[]} bytes
 * @param {string} type
 * @returns {Promise<Seen>}
 */
export function open(page, bytes, type) {
  return page.evaluate(async ({ bytes, type }) => {
    // Chromium knows APNG as PNG.
    const decoder = new ImageDecoder({ data: Uint8Array.from(bytes), type: type === 'image/apng' ? 'image/png' : type });
    await decoder.completed;
    await decoder.tracks.ready;
    const track = /** @type {ImageTrack} */ (decoder.tracks.selectedTrack);
    const [times, alphas, different] = [[], new Set(), new Set()];
    let side = 0;
    for (let frameIndex = 0; frameIndex < track.frameCount; frameIndex += 1) {
      const { image } = await decoder.decode({ frameIndex });
      side = image.displayWidth;
      const data = new Uint8ClampedArray(side * image.displayHeight * 4);
      await image.copyTo(data, { format: 'RGBA' });
      /** @type {number[]} */ (times).push(Number(image.duration) / 1000);
      for (let index = 3; index < data.length; index += 4) alphas.add(data[index]);
      different.add(data.join());
    }
    return { type, size: bytes.length, side, frames: track.frameCount, loops: track.repetitionCount, times, alphas: [...alphas], hashes: different.size };
  }, { bytes, type });
}
