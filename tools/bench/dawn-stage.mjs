// A folder of all that dawn.mjs needs, for a machine that has neither Node nor a network.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, readdirSync, realpathSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { pack, tensorsOf } from './onnx-weights.mjs';

const CORE = ['text_encoder/', 'transformer/', 'vae/'];
const SCRIPTS = [
  ...['dawn.mjs', 'dawn-page.mjs', 'dawn-worker.mjs', 'dawn-browser.mjs', 'dawn-stage.mjs', 'onnx-weights.mjs', 'page.js', 'count.js', 'race.mjs', 'safetensors.js', 'package.json'].map((name) => `tools/bench/${name}`),
  'tests/web/support/bundles.js', 'tests/web/support/hash.js',
];
const MODULES = ['webgpu/index.js', 'webgpu/package.json', 'webgpu/dist/linux-x64', 'onnxruntime-web/dist/ort.webgpu.bundle.min.mjs', 'onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify.wasm'];
/** Taken where the machine has none of its own. */
const LIBRARIES = ['libstdc++.so.6', 'libgcc_s.so.1', 'libvulkan.so.1'];

/**
 * @param {{ root: string, stage: string, model: string, pkg: string, onnx: string, node: string, what: any }} given
 * `what` is drawn
 */
export function stage({ root, stage, model, pkg, onnx, node, what }) {
  const whole = path.join(stage, 'whole');
  rmSync(stage, { recursive: true, force: true });
  const copy = (/** @type {string} */ from, /** @type {string} */ to) => cpSync(realpathSync(from), path.join(whole, to), { recursive: true });
  for (const name of SCRIPTS) copy(path.join(root, name), name);
  for (const name of MODULES) copy(path.join(root, 'tools/bench/node_modules', name), `tools/bench/node_modules/${name}`);
  for (const name of ['index.js', 'worker.js', 'inkbloom_bg.wasm']) copy(path.join(pkg, name), `pkg/dist/${name}`);
  writeFileSync(path.join(whole, 'pkg/package.json'), '{ "type": "module" }\n');
  copy(node, 'bin/node');
  execFileSync('strip', [path.join(whole, 'bin/node'), path.join(whole, 'tools/bench/node_modules/webgpu/dist/linux-x64/dawn.node')]);
  for (const name of LIBRARIES) {
    const found = ['/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu', '/usr/lib64'].map((folder) => path.join(folder, name)).find(existsSync);
    if (found) copy(found, `lib/${name}`);
  }
  copyModel(model, path.join(whole, 'www/models/sticker'));
  const tensors = tensorsOf(model);
  mkdirSync(path.join(whole, 'onnx'), { recursive: true });
  for (const name of readdirSync(onnx).filter((name) => name.endsWith('.onnx'))) {
    const { parts, rest } = pack(readFileSync(path.join(onnx, name)), tensors);
    writeFileSync(path.join(whole, 'onnx', `${name}.json`), JSON.stringify(parts));
    writeFileSync(path.join(whole, 'onnx', `${name}.rest`), rest);
  }
  writeFileSync(path.join(whole, 'drawing.json'), JSON.stringify(what));
  divide(whole, [path.join(stage, 'a'), path.join(stage, 'b')]);
  rmSync(whole, { recursive: true });
  cpSync(path.join(root, 'tools/bench/dawn.sh'), path.join(stage, 'a/run.sh'));
  for (const name of ['a', 'b']) console.log(`${path.join(stage, name)}: ${(sizeOf(path.join(stage, name)) / 2 ** 20).toFixed(1)} MiB`);
}

/** What a picture by diffusion needs of a model. @param {string} model @param {string} to */
function copyModel(model, to) {
  mkdirSync(to, { recursive: true });
  const manifest = JSON.parse(readFileSync(path.join(model, 'manifest.json'), 'utf8'));
  const tensors = manifest.tensors.filter((/** @type {any} */ { name }) => CORE.some((component) => name.startsWith(component)));
  const parts = tensors.flatMap((/** @type {any} */ tensor) => tensor.parts);
  const used = [...new Set(parts.map((/** @type {any} */ part) => part.shard))].sort((a, b) => a - b);
  for (const part of parts) part.shard = used.indexOf(part.shard);
  for (const name of manifest.optional ?? []) {
    delete manifest.configs[name];
    delete manifest.model_index[name];
  }
  const shards = used.map((index) => manifest.shards[index]);
  writeFileSync(path.join(to, 'manifest.json'), JSON.stringify({ ...manifest, optional: [], tensors, shards }));
  for (const { file } of shards) cpSync(path.join(model, file), path.join(to, file));
}

/** Every file, compressed where that helps, into the folder that is the smaller one. @param {string} whole @param {string[]} folders */
function divide(whole, folders) {
  const files = readdirSync(whole, { recursive: true, encoding: 'utf8' }).filter((name) => statSync(path.join(whole, name)).isFile());
  const packed = files.map((name) => {
    const file = path.join(whole, name);
    const { size } = statSync(file);
    execFileSync('xz', ['-9', '--keep', '--threads=1', file]);
    const smaller = statSync(`${file}.xz`).size < 0.97 * size;
    return smaller ? { name: `${name}.xz`, size: statSync(`${file}.xz`).size } : { name, size };
  });
  const held = folders.map(() => 0);
  for (const { name, size } of packed.sort((one, other) => other.size - one.size)) {
    const least = held.indexOf(Math.min(...held));
    held[least] += size;
    cpSync(path.join(whole, name), path.join(folders[least], name), { recursive: true });
  }
}

/** @param {string} folder */
function sizeOf(folder) {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' }).reduce((sum, name) => sum + statSync(path.join(folder, name)).size, 0);
}
