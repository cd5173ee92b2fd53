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
