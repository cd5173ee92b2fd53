// What the ways of racing have in common: what both sides draw from, and how their times are told.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { readTensors } from './safetensors.js';

export const PARTS = ['text', 'denoise', 'decode', 'total'];
/** How far a picture may be from the command line's, in values of -1..1; onnxruntime-web's WebGPU was seen 1.1e-2 away. */
export const SAME = { ours: 5e-3, theirs: 2e-2 };

/** @param {number[]} list */
export const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
/** @param {number[]} list @param {number} digits */
export const spread = (list, digits = 0) => `${median(list).toFixed(digits)} (${Math.min(...list).toFixed(digits)} to ${Math.max(...list).toFixed(digits)})`;
/** @param {string[]} cells */
export const row = (...cells) => `| ${cells.join(' | ')} |`;

/**
 * What both sides draw from: the tokens and the noise of the command line, and its picture.
 *
 * @param {{ inkbloom: string, model: string, prompt: string, steps: number }} given
 */
export function drawing({ inkbloom, model, prompt, steps }) {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inkbloom-bench-'));
  const dump = path.join(folder, 'dump.safetensors');
  const args = ['generate', '--model', model, '--prompt', prompt, '--seed', '1', '--steps', `${steps}`, '--dump', dump];
  execFileSync(inkbloom, [...args, '--out', path.join(folder, 'out.png')], { stdio: ['ignore', 'ignore', 'inherit'] });
  const tensors = readTensors(readFileSync(dump));
  const { scheduler, vae } = JSON.parse(readFileSync(path.join(model, 'manifest.json'), 'utf8')).configs;
  const line = Array.from({ length: steps }, (_, i) => 1 - (i * (1 - 1 / steps)) / Math.max(steps - 1, 1));
  const { shift } = scheduler;
  const { latents_mean: mean, latents_std: std, scaling_factor: scaling = 1, shift_factor: offset } = vae;
  const ids = tensors.input_ids.values;
  return {
    ids,
    mask: ids.map((/** @type {number} */ id) => Number(id !== 0)),
    noise: tensors.noise.values,
    shape: tensors.noise.shape,
    image: tensors.image.values,
    sigmas: [...line.map((sigma) => (shift * sigma) / (1 + (shift - 1) * sigma)), 0],
    latent: mean && std
      ? { scale: std.map((/** @type {number} */ value) => value / scaling), shift: mean }
      : { scale: [1 / scaling], shift: [offset ?? 0] },
  };
}

/** @param {number[]} a @param {number[]} b */
export const distance = (a, b) => a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);

/**
 * The times of both sides, part by part, as the lines of a table.
 *
 * @param {any} result what page.js gives @param {number} [digits] of a millisecond
 */
export function timesTable({ ours, theirs }, digits = 0) {
  const times = (/** @type {any} */ side, /** @type {string} */ part) => side.rounds.map((/** @type {any} */ round) => round[part]);
  const lines = [row('', 'Inkbloom ms', 'onnxruntime-web ms', 'ours over theirs, median of rounds'), row('---', '---', '---', '---')];
  for (const part of PARTS) {
    const own = times(ours, part);
    const others = theirs && times(theirs, part);
    const ratio = others ? spread(others.map((/** @type {number} */ ms, /** @type {number} */ i) => ms / own[i]), 2) : '';
    lines.push(row(part, spread(own, digits), others ? spread(others, digits) : '', ratio));
  }
  lines.push(row('load', ours.load.toFixed(0), theirs?.load.toFixed(0) ?? '', ''), row('first picture', ours.first.total.toFixed(0), theirs?.first.total.toFixed(0) ?? '', ''));
  return lines;
}

/** What each side asks of WebGPU, as the lines of a table. @param {any} result what page.js gives */
export function countsTable({ ours, theirs }) {
  const cell = (/** @type {any} */ side, /** @type {string} */ key) => (side?.counts ? `${side.counts.step[key]} a step, ${side.counts.rest[key]} besides, ${side.counts.all[key]} in all` : '');
  return [row('WebGPU', 'Inkbloom', 'onnxruntime-web'), row('---', '---', '---'), ...Object.keys(ours.counts.step).map((key) => row(key, cell(ours, key), cell(theirs, key)))];
}
