import { BufferTarget, EncodedPacket, EncodedVideoPacketSource, Output, WebMOutputFormat } from 'mediabunny';
import { filmSettings } from './film.js';

/** What is seen, and how much of it is, as grey: no browser's encoder takes both at once. @param {ImageData} frame @param {{ timestamp: number, duration: number }} times */
function split({ data, width, height }, times) {
  const [half, quarter] = [Math.ceil(width / 2), Math.ceil(width / 2) * Math.ceil(height / 2)];
  const grey = new Uint8Array(width * height + 2 * quarter).fill(128);
  for (let index = 0; index < width * height; index += 1) grey[index] = data[4 * index + 3];
  const layout = [{ offset: 0, stride: width }, { offset: width * height, stride: half }, { offset: width * height + quarter, stride: half }];
  return [
    new VideoFrame(data, { ...times, format: 'RGBX', codedWidth: width, codedHeight: height }),
    new VideoFrame(grey, { ...times, format: 'I420', codedWidth: width, codedHeight: height, layout }),
  ];
}

/**
 * @param {VideoFrame[]} frames
 * @param {VideoEncoderConfig} settings
 * @returns {Promise<{ chunks: EncodedVideoChunk[], meta: EncodedVideoChunkMetadata | undefined }>}
 */
async function chunksOf(frames, settings) {
  /** @type {EncodedVideoChunk[]} */
  const chunks = [];
  /** @type {EncodedVideoChunkMetadata | undefined} */
  let meta;
  /** @type {DOMException | undefined} */
  let failure;
  const encoder = new VideoEncoder({
    output(chunk, more) {
      meta ??= more;
      chunks.push(chunk);
    },
    error: (error) => { failure = error; },
  });
  encoder.configure(settings);
  for (const [index, frame] of frames.entries()) {
    encoder.encode(frame, { keyFrame: index === 0 });
    frame.close();
  }
  await encoder.flush().catch((error) => { throw failure ?? error; });
  encoder.close();
  return { chunks, meta };
}

/** @param {EncodedVideoChunk} chunk */
function bytesOf(chunk) {
  const bytes = new Uint8Array(chunk.byteLength);
  chunk.copyTo(bytes);
  return bytes;
}

/**
 * A WebM with transparency.
 *
 * @param {ImageData[]} frames of one size
 * @param {number} frameMs
 * @returns {Promise<Blob>}
 */
export async function encode(frames, frameMs) {
  const settings = filmSettings(frames[0].width, frames[0].height, frameMs);
  const halves = frames.map((frame, index) => split(frame, { timestamp: index * frameMs * 1000, duration: frameMs * 1000 }));
  const [colours, alphas] = await Promise.all([0, 1].map((half) => chunksOf(halves.map((both) => both[half]), settings)));
  const target = new BufferTarget();
  const output = new Output({ format: new WebMOutputFormat(), target });
  const source = new EncodedVideoPacketSource('vp9');
  output.addVideoTrack(source);
  await output.start();
  for (const [index, chunk] of colours.chunks.entries()) {
    await source.add(EncodedPacket.fromEncodedChunk(chunk, { alpha: bytesOf(alphas.chunks[index]) }), colours.meta);
  }
  await output.finalize();
  return new Blob([/** @type {ArrayBuffer} */ (target.buffer)], { type: 'video/webm' });
}
