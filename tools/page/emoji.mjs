// Writes www/emoji-names.js: every emoji with its English name from CLDR, out of the library emojibase-data.
//   npm pack emojibase-data@17.0.0 && tar -xzf emojibase-data-17.0.0.tgz
//   node tools/page/emoji.mjs package/en/compact.json
import { readFileSync, writeFileSync } from 'node:fs';

/** @type {{ unicode: string, label: string, hexcode: string }[]} */
const all = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const lines = all
  // A letter of a flag is not a thing to draw.
  .filter(({ label }) => !label.startsWith('regional indicator'))
  .map(({ hexcode, label }) => {
    const emoji = String.fromCodePoint(...hexcode.split('-').map((code) => Number.parseInt(code, 16))).replaceAll('\uFE0F', '');
    return `  ${JSON.stringify(emoji)}: ${JSON.stringify(label.replaceAll(':', '').replaceAll('“', '').replaceAll('”', ''))},`;
  })
  .sort();
writeFileSync(new URL('../../www/emoji-names.js', import.meta.url), `// Made by tools/page/emoji.mjs from emojibase-data 17.0.0 (MIT; names from Unicode CLDR 48, Unicode License v3). Skin tones are left out.
/** @type {Record<string, string>} */
export const NAMES = {
${lines.join('\n')}
};
`);
