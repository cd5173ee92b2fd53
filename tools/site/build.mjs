// The page as a folder for any static host:
//   node tools/site/build.mjs [--out DIR] [--quality N]    how hard brotli tries: 11, else less for a quick look
//
// What the page is made of is named after what it holds, so that a host may let browsers keep it for ever; only what is
// asked for by name from outside keeps its own. All addresses are relative, so the folder may lie anywhere below an
// origin. A .br and a .gz lie beside all that shrinks, for hosts that serve such files.
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs, promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';

const root = fileURLToPath(new URL('../../', import.meta.url));
/** @type {typeof import('esbuild')} */
const { transform } = createRequire(path.join(root, 'pkg', 'package.json'))('esbuild');

/** Folders by where they go; what of them is no part of the page. */
const SOURCES = { '': path.join(root, 'www'), 'pkg/': path.join(root, 'pkg', 'dist') };
const LEFT_OUT = /(\.map|\.d\.ts|\.mjs)$/;
/** Pages, the service worker and the app's manifest are what browsers come back to; models have names of their own. */
const KEEPS_NAME = /(\.html|\.webmanifest|\/LICENSE[^/]*|^sw\.js)$|^models\//;
const TEXT = /\.(html|js|css|json|svg|webmanifest)$/;
/** Weights shrink by less than a tenth. */
const SHRINKS = /\.(html|js|css|json|svg|webmanifest|wasm|md)$/;

const { values } = parseArgs({ options: { out: { type: 'string' }, quality: { type: 'string', default: '11' } } });
const quality = Number(values.quality);

/** @typedef {Map<string, Buffer>} Files contents by path below the site */

/** @returns {Promise<Files>} */
async function collect() {
  /** @type {Files} */
  const files = new Map();
  for (const [prefix, folder] of Object.entries(SOURCES)) {
    for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
      const file = path.join(entry.parentPath, entry.name);
      const name = prefix + path.relative(folder, file).split(path.sep).join('/');
      if (entry.isFile() && !LEFT_OUT.test(name)) files.set(name, await shorten(name, await readFile(file)));
    }
  }
  return files;
}

/**
 * The package is minified already, and points at a source map that stays behind.
 *
 * @param {string} name
 * @param {Buffer} content
 */
async function shorten(name, content) {
  if (name.startsWith('models/') || !/\.(js|css)$/.test(name)) return content;
  const text = content.toString('utf8').replace(/^\/\/# sourceMappingURL=.*$/m, '');
  if (name.startsWith('pkg/')) return Buffer.from(text);
  const { code } = await transform(text, { loader: name.endsWith('.css') ? 'css' : 'js', minify: true, target: 'es2022' });
  return Buffer.from(code);
}

/**
 * Calls `replace` for every quoted address in a text that names another file of the site.
 *
 * @param {Files} files
 * @param {string} name
 * @param {(target: string) => string} replace
 */
function rewrite(files, name, replace) {
  const folder = path.posix.dirname(name);
  return String(files.get(name)).replace(/(["'`(])([^"'`()\s?#]+)(?=["'`)?#])/g, (whole, quote, address) => {
    const target = path.posix.join(folder, address);
    return files.has(target) && target !== name ? quote + replace(target) : whole;
  });
}

/**
 * The names that files get: after what they hold and all that they lead to, for its names change with it.
 *
 * @param {Files} files
 * @returns {Map<string, string>}
 */
function nameByContent(files) {
  /** @type {Map<string, string[]>} */
  const leads = new Map();
  for (const name of files.keys()) {
    /** @type {string[]} */
    const targets = [];
    if (TEXT.test(name) && !name.startsWith('models/')) rewrite(files, name, (target) => { targets.push(target); return ''; });
    leads.set(name, targets);
  }
  /** @type {Map<string, string>} */
  const names = new Map();
  for (const name of files.keys()) {
    const reached = new Set([name]);
    for (const next of reached) leads.get(next)?.forEach((target) => reached.add(target));
    const hash = createHash('sha256');
    for (const each of [...reached].sort()) hash.update(each).update(/** @type {Buffer} */ (files.get(each)));
    const { dir, name: stem, ext } = path.posix.parse(name);
    names.set(name, KEEPS_NAME.test(name) ? name : path.posix.join(dir, `${stem}-${hash.digest('hex').slice(0, 8)}${ext}`));
  }
  return names;
}

/**
 * @param {string} file
 * @param {Buffer} content
 */
async function write(file, content) {
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, content);
  if (!SHRINKS.test(file)) return;
  const brotli = promisify(brotliCompress)(content, { params: { [constants.BROTLI_PARAM_QUALITY]: quality, [constants.BROTLI_PARAM_SIZE_HINT]: content.length } });
  const gzipped = promisify(gzip)(content, { level: 9 });
  for (const [ending, small] of [['br', await brotli], ['gz', await gzipped]]) {
    if (small.length < content.length) await writeFile(`${file}.${ending}`, small);
  }
}

/** @param {string} out */
async function build(out) {
  if (existsSync(out) && (await readdir(out)).length > 0 && !existsSync(path.join(out, 'sw.js'))) {
    throw new Error(`${out} holds something else; name an empty folder, or one that this made before.`);
  }
  const missing = Object.values(SOURCES).find((folder) => !existsSync(folder));
  if (missing) throw new Error(`There is no ${missing}: run \`./build.sh site\`, which builds it first.`);
  const files = await collect();
  const names = nameByContent(files);
  await rm(out, { recursive: true, force: true });
  for (const [name, content] of files) {
    const renamed = /** @type {string} */ (names.get(name));
    const text = TEXT.test(name) && !name.startsWith('models/');
    const address = (/** @type {string} */ target) => `./${path.posix.relative(path.posix.dirname(name), /** @type {string} */ (names.get(target)))}`;
    await write(path.join(out, renamed), text ? Buffer.from(rewrite(files, name, address)) : content);
  }
  console.log(`The site is in ${out}: copy the folder to any static host.`);
}

await build(path.resolve(values.out ?? path.join(root, 'site'))).catch((error) => {
  console.error(error.message);
  process.exit(1);
});
