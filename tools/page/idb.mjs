// Writes www/lib/idb.js, what the page uses of the library idb (IndexedDB with promises), at the version that pkg/ pins:
//   node tools/page/idb.mjs
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';

const require = createRequire(new URL('../../pkg/package.json', import.meta.url));
/** @type {typeof import('esbuild')} */
const { build } = require('esbuild');

export const TARGET = fileURLToPath(new URL('../../www/lib/idb.js', import.meta.url));

/** The module's text. */
export async function bundleIdb() {
  const licence = readFileSync(fileURLToPath(new URL('../../pkg/node_modules/idb/LICENSE', import.meta.url)), 'utf8').trim();
  const { outputFiles } = await build({
    stdin: { contents: "export { openDB } from 'idb';", resolveDir: fileURLToPath(new URL('../../pkg/', import.meta.url)) },
    bundle: true,
    format: 'esm',
    target: 'es2022',
    minify: true,
    write: false,
    banner: { js: `// @ts-nocheck Made by tools/page/idb.mjs from the library idb.\n/*! ${licence}\n*/` },
  });
  return outputFiles[0].text;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(TARGET, await bundleIdb());
