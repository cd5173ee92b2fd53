// Bundles src/ and the wasm-bindgen output into dist/:
//   node build.mjs [--wasm DIR] [--out DIR]
// Types come from tsc; everything else from esbuild.
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { build } from 'esbuild';

const here = path.dirname(fileURLToPath(import.meta.url));
const { values } = parseArgs({ options: { wasm: { type: 'string' }, out: { type: 'string' } } });
const wasm = path.resolve(values.wasm ?? path.join(here, 'wasm'));
const out = path.resolve(values.out ?? path.join(here, 'dist'));
const source = (/** @type {string} */ name) => path.join(here, 'src', name);

const glue = path.join(wasm, 'inkbloom.js');
if (!(await stat(glue).catch(() => undefined))) {
  console.error(`There is no ${path.relative(process.cwd(), glue)}: run \`./build.sh wasm\` first.`);
  process.exit(1);
}

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });

/** @type {import('esbuild').BuildOptions} */
const common = {
  bundle: true,
  format: 'esm',
  target: 'es2022',
  minify: true,
  sourcemap: true,
  legalComments: 'eof',
  outdir: out,
  logLevel: 'warning',
};

// Fetched when a film is first saved: its code is larger than all the rest.
await build({ ...common, entryPoints: [source('webm.js')] });
await build({ ...common, entryPoints: [source('index.js')], external: ['./webm.js'] });
await build({ ...common, entryPoints: [source('worker.js')], alias: { 'inkbloom-wasm': glue } });
// The element uses the very classes that a page imports from index.js, so it must not bring copies of its own.
await build({ ...common, entryPoints: [source('element.js')], external: ['./index.js'] });
await copyFile(path.join(wasm, 'inkbloom_bg.wasm'), path.join(out, 'inkbloom_bg.wasm'));

// libwebp, which the worker fetches when an animation is first saved.
const webp = path.join(here, 'node_modules', '@jsquash', 'webp');
await copyFile(path.join(webp, 'codec', 'enc', 'webp_enc_simd.wasm'), path.join(out, 'webp_enc_simd.wasm'));

// Who copies dist/ copies these works too, and their licences ask to come along.
await copyFile(path.join(here, 'node_modules', 'idb', 'LICENSE'), path.join(out, 'LICENSE-idb'));
await copyFile(path.join(here, 'node_modules', 'mediabunny', 'LICENSE'), path.join(out, 'LICENSE-mediabunny'));
await copyFile(path.join(webp, 'LICENSE'), path.join(out, 'LICENSE-jsquash-webp'));
await copyFile(path.join(webp, 'codec', 'LICENSE.codec.md'), path.join(out, 'LICENSE-libwebp'));
/** @type {string[]} */
const licences = [];
for (const name of ['LICENSE-MIT', 'LICENSE-APACHE']) {
  await copyFile(path.join(here, '..', name), path.join(out, name));
  licences.push(await readFile(path.join(here, '..', name), 'utf8'));
}
// npm packs a file of this name, and tools that look for a licence know no other.
await writeFile(path.join(here, 'LICENSE'), `Licensed under either of these, at your option (MIT OR Apache-2.0).\n\n${licences.join(`\n\n${'-'.repeat(80)}\n\n`)}`);

const tsc = createRequire(import.meta.url).resolve('typescript/package.json');
execFileSync(process.execPath, [path.join(path.dirname(tsc), 'bin', 'tsc'), '-p', here, '--emitDeclarationOnly', '--noEmit', 'false', '--outDir', out], { stdio: 'inherit' });
// tsc copies no declarations, yet the public types mention these.
for (const name of ['contract.d.ts', 'options.d.ts']) await copyFile(source(name), path.join(out, name));
