import { pageAddress, resolveModel } from './model-url.js';
import { withStore } from './store.js';

/**
 * A model stored in this browser.
 *
 * @typedef {object} StoredModel
 * @property {string} id the address of the bundle's folder
 * @property {number} bytes stored so far
 * @property {boolean} complete whether it can be loaded without a network
 */

/**
 * The models that are stored in this browser for this site. Every method rejects with the code `quota` where the
 * browser refuses storage altogether.
 */
export const models = {
  /** @returns {Promise<StoredModel[]>} */
  list: () => withStore((store) => store.list()),

  /** @returns {Promise<number>} bytes of all stored models */
  size: async () => (await models.list()).reduce((sum, { bytes }) => sum + bytes, 0),

  /** @param {string | URL} model an `id` of `list()`, or what was given to `load` as `model` */
  delete: (model) => withStore((store) => store.delete(resolveModel(model, pageAddress()).id)),

  clear: () => withStore((store) => store.clear()),

  /**
   * Asks the browser never to evict what is stored. Some browsers ask the visitor, so call it when a picture
   * has shown what it is good for, not at the start.
   *
   * @returns {Promise<boolean>} whether the browser agreed
   */
  persist: async () => (await globalThis.navigator?.storage?.persist?.()) ?? false,
};
