/**
 * A picture's recipe in an address: behind the #, which browsers send to nobody.
 *
 * @typedef {Record<string, string>} Recipe
 */

const NAMES = ['prompt', 'style', 'seed', 'size', 'count', 'candidates', 'way', 'steps', 'guidance', 'negative', 'picture'];

/**
 * What the page's address asks for. Links of earlier versions carry it behind the ?; it is moved from there, so that
 * loading the page again does not send it to the server once more.
 *
 * @returns {Recipe | undefined} undefined where it names nothing
 */
export function takeRecipe() {
  const url = new URL(location.href);
  const asked = new URLSearchParams(url.hash.slice(1));
  const old = NAMES.filter((name) => url.searchParams.has(name));
  for (const name of old) {
    if (!asked.has(name)) asked.set(name, String(url.searchParams.get(name)));
    url.searchParams.delete(name);
  }
  if (old.length > 0) {
    url.hash = asked.toString();
    history.replaceState(null, '', url);
  }
  const recipe = Object.fromEntries([...asked].filter(([name]) => NAMES.includes(name)));
  return Object.keys(recipe).length > 0 ? recipe : undefined;
}

/** @param {Recipe} recipe */
export function linkTo(recipe) {
  const url = new URL(location.href);
  // No style is a choice, too; anything else that is empty is the model's own.
  url.hash = new URLSearchParams(Object.entries(recipe).filter(([name, value]) => value !== '' || name === 'style')).toString();
  return url.href;
}

/** Takes the recipe out of the address, where something else is drawn now. */
export function forgetRecipe() {
  if (location.hash === '') return;
  const url = new URL(location.href);
  url.hash = '';
  history.replaceState(null, '', url);
}
