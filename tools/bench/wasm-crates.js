// How many bytes of a WebAssembly module's code come from which Rust crate, by the names that it still has before
// wasm-bindgen takes them away.
import { brotliCompressSync, constants } from 'node:zlib';

const CODE_SECTION = 10;
const IMPORT_SECTION = 2;
const CUSTOM_SECTION = 0;
const FUNCTION_NAMES = 1;
const FUNCTION_IMPORT = 0;

class Reader {
  /** @param {Uint8Array} bytes @param {number} [at] */
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.at = at;
  }

  byte() {
    return this.bytes[this.at++];
  }

  /** LEB128, unsigned. */
  number() {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  take() {
    const length = this.number();
    const start = this.at;
    this.at += length;
    return this.bytes.subarray(start, this.at);
  }

  text() {
    return new TextDecoder().decode(this.take());
  }
}

/** @param {Uint8Array} section */
function importedFunctions(section) {
  const reader = new Reader(section);
  let functions = 0;
  for (let left = reader.number(); left > 0; left -= 1) {
    reader.take();
    reader.take();
    const kind = reader.byte();
    if (kind === FUNCTION_IMPORT) {
      functions += 1;
      reader.number();
      continue;
    }
    // A table has a type before its limits, a global one and whether it changes.
    if (kind === 1) reader.byte();
    if (kind === 3) reader.at += 2;
    if (kind === 4) reader.at += 1, reader.number();
    if (kind === 1 || kind === 2) {
      const bounded = reader.number() & 1;
      reader.number();
      if (bounded) reader.number();
    }
  }
  return functions;
}

/** The crate of a mangled name: the first path in it. @param {string} name */
function crateOf(name) {
  const legacy = name.match(/^_ZN(\d+)(.*)$/);
  if (legacy) {
    const first = legacy[2].slice(0, Number(legacy[1]));
    // `<crate::Type as Trait>` is written so, with escapes.
    return first.match(/^_?(?:\$LT\$)?(?:impl\$u20\$)?(?:\$RF\$)?([a-z][a-z0-9_]*)/)?.[1] ?? first;
  }
  // Version 0: `Cs<hash>_<length><crate>`.
  const modern = name.startsWith('_R') && name.match(/Cs[0-9a-zA-Z]*_(\d+)_?([a-z][a-z0-9_]*)/);
  if (modern) return modern[2].slice(0, Number(modern[1]));
  // Already readable.
  return name.match(/^<*&?(?:mut )?(?:dyn )?([a-z][a-z0-9_]*)::/)?.[1] ?? 'other';
}

/**
 * The largest first.
 *
 * @param {Uint8Array} wasm
 * @returns {{ crate: string, bytes: number, brotli: number }[]}
 */
export function sizesByCrate(wasm) {
  const reader = new Reader(wasm, 8);
  let imported = 0;
  /** @type {Uint8Array[]} */
  let bodies = [];
  /** @type {Map<number, string>} */
  const names = new Map();
  while (reader.at < wasm.length) {
    const id = reader.byte();
    const section = reader.take();
    if (id === IMPORT_SECTION) imported = importedFunctions(section);
    if (id === CODE_SECTION) {
      const code = new Reader(section);
      bodies = Array.from({ length: code.number() }, () => code.take());
    }
    if (id === CUSTOM_SECTION) {
      const custom = new Reader(section);
      if (custom.text() !== 'name') continue;
      while (custom.at < section.length) {
        const kind = custom.byte();
        const map = new Reader(custom.take());
        if (kind !== FUNCTION_NAMES) continue;
        for (let left = map.number(); left > 0; left -= 1) names.set(map.number(), map.text());
      }
    }
  }
  /** @type {Map<string, Uint8Array[]>} */
  const crates = new Map();
  bodies.forEach((body, i) => {
    const crate = crateOf(names.get(imported + i) ?? '');
    const parts = crates.get(crate);
    if (parts) parts.push(body);
    else crates.set(crate, [body]);
  });
  const sizes = [...crates].map(([crate, parts]) => {
    const code = Buffer.concat(parts);
    return { crate, bytes: code.length, brotli: brotliCompressSync(code, { params: { [constants.BROTLI_PARAM_QUALITY]: 9 } }).length };
  });
  return sizes.sort((a, b) => b.bytes - a.bytes);
}
