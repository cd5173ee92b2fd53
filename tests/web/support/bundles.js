// Bundles for browser tests: tiny models made by `inkbloom convert`, and changed copies of them.
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { sha256 } from './hash.js';

const FIXTURES = fileURLToPath(new URL('../../fixtures/', import.meta.url));

/**
 * The parts of a manifest that tests change.
 *
 * @typedef {object} Manifest
 * @property {number} version
 * @property {{ file: string, size: number, sha256: string }[]} shards
 * @property {{ name: string, shape: number[], parts: { shard: number, offset: number, rows: number }[] }[]} tensors
 *
 * @typedef {{ manifest: Manifest, shards: Buffer[] }} Bundle
 */

/** The tiny models and their references, as diffusers folders. */
export const fixturesFolder = () => path.join(FIXTURES, 'pipeline');

/** The folder with the converted tiny models; a missing one is a failure, never a pass. */
export function bundlesFolder() {
  const folder = process.env.INKBLOOM_TEST_BUNDLES;
  if (!folder || !existsSync(path.join(folder, 'sticker_tiny', 'manifest.json'))) {
    throw new Error('INKBLOOM_TEST_BUNDLES does not name a folder with sticker_tiny/manifest.json: run `./build.sh test`, which converts the tiny models first.');
  }
  return folder;
}

/** @param {string} name */
export function readBundle(name) {
  return readBundleAt(path.join(bundlesFolder(), name));
}

/** A bundle of version 1, and the picture that its writer drew of "a red apple" in two steps from seed 7. */
export function readOldBundle() {
  const folder = path.join(FIXTURES, 'bundle_v1');
  return { bundle: readBundleAt(folder), image: readTensor(path.join(folder, 'seed-7.safetensors'), 'image') };
}

/**
 * @param {string} folder
 * @returns {Bundle}
 */
function readBundleAt(folder) {
  /** @type {Manifest} */
  const manifest = JSON.parse(readFileSync(path.join(folder, 'manifest.json'), 'utf8'));
  return { manifest, shards: manifest.shards.map(({ file }) => readFileSync(path.join(folder, file))) };
}

/**
 * The same model in several shards, cut where a tensor begins.
 *
 * @param {Bundle} bundle
 * @param {number} count
 * @returns {Bundle}
 */
export function splitBundle({ manifest, shards }, count) {
  const whole = Buffer.concat(shards);
  const starts = shards.map((_, index) => shards.slice(0, index).reduce((sum, { length }) => sum + length, 0));
  const parts = manifest.tensors.flatMap((tensor) => tensor.parts);
  const offsets = parts.map(({ shard, offset }) => starts[shard] + offset).sort((a, b) => a - b);
  const cuts = Array.from({ length: count }, (_, index) => (index === 0 ? 0 : offsets[Math.floor((index * offsets.length) / count)]));
  const pieces = cuts.map((cut, index) => whole.subarray(cut, cuts[index + 1] ?? whole.length));
  return {
    manifest: {
      ...manifest,
      shards: pieces.map((bytes, index) => ({ file: `shard-00${index}.bin`, size: bytes.length, sha256: sha256(bytes) })),
      tensors: manifest.tensors.map((tensor) => ({
        ...tensor,
        parts: tensor.parts.map((part) => {
          const offset = starts[part.shard] + part.offset;
          const shard = cuts.findLastIndex((cut) => cut <= offset);
          return { ...part, shard, offset: offset - cuts[shard] };
        }),
      })),
    },
    shards: pieces,
  };
}

/**
 * @param {import('./site.js').Site} site
 * @param {string} folder for example '/models/split/'
 * @param {Bundle} bundle
 */
export function publish(site, folder, { manifest, shards }) {
  site.files.set(`${folder}manifest.json`, JSON.stringify(manifest));
  manifest.shards.forEach(({ file }, index) => site.files.set(folder + file, shards[index]));
}

/**
 * What diffusers and transformers gave for a model.
 *
 * @param {string} name for example 'pipeline/sticker_tiny'
 */
export function readReference(name) {
  const request = JSON.parse(readFileSync(path.join(FIXTURES, name, 'request.json'), 'utf8'));
  const file = path.join(FIXTURES, name, 'reference.safetensors');
  return { request, noise: readTensor(file, 'noise'), image: readTensor(file, 'image') };
}

/**
 * What the command line drew of a tiny model natively, from a seed: `./build.sh test` dumps it beside the bundle.
 *
 * @param {string} name
 * @param {string} [way] of drawing, of a model that has several
 */
export function readNative(name, way) {
  return readTensor(path.join(bundlesFolder(), name, `seed-7${way ? `-${way}` : ''}.safetensors`), 'image');
}

/**
 * One f32 tensor of a safetensors file.
 *
 * @param {string} file
 * @param {string} tensor
 */
function readTensor(file, tensor) {
  const bytes = readFileSync(file);
  const headLength = Number(bytes.readBigUInt64LE(0));
  const [start, end] = JSON.parse(bytes.toString('utf8', 8, 8 + headLength))[tensor].data_offsets;
  // A copy: the data need not be aligned within the file.
  return new Float32Array(Uint8Array.prototype.slice.call(bytes, 8 + headLength + start, 8 + headLength + end).buffer);
}

/**
 * Norm of the difference over the norm of the reference.
 *
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} reference
 */
export function relativeError(values, reference) {
  if (values.length !== reference.length) return Infinity;
  let difference = 0;
  let norm = 0;
  for (let index = 0; index < reference.length; index += 1) {
    difference += (values[index] - reference[index]) ** 2;
    norm += reference[index] ** 2;
  }
  return Math.sqrt(difference / norm);
}

/**
 * Of two pictures with values -1 to 1, in dB.
 *
 * @param {ArrayLike<number>} values
 * @param {ArrayLike<number>} reference
 */
export function psnr(values, reference) {
  if (values.length !== reference.length) return -Infinity;
  const squares = Array.from(values, (value, index) => (value - reference[index]) ** 2);
  const meanSquare = squares.reduce((sum, square) => sum + square, 0) / squares.length;
  return 10 * Math.log10(2 ** 2 / meanSquare);
}
