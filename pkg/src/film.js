/** VP9, which all but Safari show with its alpha. */
const CODEC = 'vp09.00.40.08';
/** So many bits for a pixel of a frame: a sticker has sharp edges. */
const BITS = 1.5;

/**
 * How frames of a size are encoded.
 *
 * @param {number} width
 * @param {number} height
 * @param {number} frameMs
 * @returns {VideoEncoderConfig}
 */
export function filmSettings(width, height, frameMs) {
  const framerate = 1000 / frameMs;
  return { codec: CODEC, width, height, framerate, bitrate: Math.round(width * height * framerate * BITS), latencyMode: 'quality' };
}

/**
 * Whether this browser encodes films.
 *
 * @param {VideoEncoderConfig} settings
 */
export async function canEncode(settings) {
  if (typeof VideoEncoder === 'undefined') return false;
  return (await VideoEncoder.isConfigSupported(settings).catch(() => undefined))?.supported === true;
}
