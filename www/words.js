/**
 * The words that the model gets: it was trained on captions like "3d emoji of a red apple".
 *
 * @param {string} style
 * @param {string} prompt
 */
export function withStyle(style, prompt) {
  const words = prompt.trim().replace(/\s+/g, ' ');
  if (style === '' || words === '' || /\b(emoji|icon|sticker) of\b/i.test(words)) return words;
  return `${style} of ${words}`;
}

/** @param {string} prompt */
export function fileName(prompt) {
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 60);
  return words || 'inkbloom';
}

/** One emoji with all that belongs to it: a flag, a keycap, or pictures joined into one (Unicode Technical Standard 51). */
const EMOJI = /\p{RI}\p{RI}|[#*\d]\uFE0F?\u20E3|\p{Extended_Pictographic}(?:\p{EMod}|\uFE0F|[\u{E0020}-\u{E007E}]+\u{E007F})?(?:\u200D\p{Extended_Pictographic}(?:\p{EMod}|\uFE0F)?)*/gu;
const EMOJI_IN_A_ROW = new RegExp(`(?:(?:${EMOJI.source})\\s*)+`, 'gu');

/** @param {string} text */
export function hasEmoji(text) {
  return text.search(EMOJI) >= 0;
}

/**
 * Puts its name in each emoji's place: a model of words never saw one.
 *
 * @param {string} text
 * @param {Record<string, string>} names by emoji, without variation selectors and skin tones
 * @returns {{ text: string, named: Map<string, string>, unknown: string[] }}
 */
export function nameEmoji(text, names) {
  const named = new Map();
  /** @type {string[]} */
  const unknown = [];
  /** @param {string} emoji */
  const nameOf = (emoji) => {
    const plain = emoji.replace(/[\uFE0F\p{EMod}]/gu, '');
    // What is joined anew every year can still be named by its parts.
    const name = names[plain] ?? plain.split('\u200D').map((part) => names[part]).filter(Boolean).join(' ');
    if (name) named.set(emoji, name);
    else unknown.push(emoji);
    return name;
  };
  const read = text.replace(EMOJI_IN_A_ROW, (row) => {
    const each = new Set((row.match(EMOJI) ?? []).map(nameOf).filter(Boolean));
    return ` ${[...each].join(' and ')} `;
  });
  return { text: read.replace(/\s+/g, ' ').replace(/ (?=[,.;:!?])/g, '').trim(), named, unknown };
}

/**
 * Whether a prompt puts one thing beside another.
 *
 * @param {string} text
 */
export function putsTogether(text) {
  return /\b(next to|beside|above|below|under|on top of|(left|right) of)\b/i.test(text);
}

/** Words that say nothing about what is to be seen; shorter ones are not looked at. */
const LITTLE = new Set(('about above after against along also among and another around away because been before being below beneath beside besides between '
  + 'both could doing down draw drawing drawn during each ever every from gets give have having here inside into inside just like likes little made make makes '
  + 'many more most much must near next only onto other over outside please seen sees shall show shows some such than that the their them then there these they '
  + 'this those through toward towards under until upon very want wants were what when where which while whose will with within without would your').split(' '));
const SHORT = 3;

/**
 * The words of a prompt that the model cannot know.
 *
 * @param {string} text
 * @param {Set<string>} [known] every word of the captions that it was trained on, where there is a list of them
 * @returns {{ foreign: string[], unknown: string[] }} `foreign` is of another script
 */
export function strangeWords(text, known) {
  const words = [...new Set(text.normalize('NFC').match(/[\p{L}\p{M}]+/gu) ?? [])];
  const foreign = words.filter((word) => /\p{L}/u.test(word.replace(/\p{Script=Latin}/gu, '')));
  const unknown = known === undefined ? [] : words.filter((word) => !foreign.includes(word)).filter((word) => {
    const plain = word.normalize('NFKD').replace(/\p{M}/gu, '').toLowerCase();
    return plain.length > SHORT && !LITTLE.has(plain) && !forms(plain).some((form) => known.has(form));
  });
  return { foreign, unknown };
}

/** What a dictionary might have an English word under. @param {string} word */
function forms(word) {
  const stems = [word, `${word}s`];
  for (const [ending, ...instead] of [['s', ''], ['es', ''], ['ies', 'y'], ['ves', 'f', 'fe'], ['ing', '', 'e'], ['ed', '', 'e'], ['er', '', 'e'], ['est', '', 'e'], ['y', '', 'e'], ['ier', 'y'], ['iest', 'y'], ['ly', '']]) {
    if (!word.endsWith(ending)) continue;
    for (const end of instead) {
      const stem = word.slice(0, -ending.length) + end;
      stems.push(stem);
      // "running" is "run".
      if (end === '' && stem.at(-1) === stem.at(-2)) stems.push(stem.slice(0, -1));
    }
  }
  return stems.filter((stem) => stem.length >= SHORT);
}
