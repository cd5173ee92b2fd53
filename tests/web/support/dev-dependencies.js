// The tests live outside pkg/, whose node_modules hold the tools: one installation serves both.
import { createRequire } from 'node:module';

const require = createRequire(new URL('../../../pkg/package.json', import.meta.url));

/** @type {typeof import('playwright-core')} */
export const { chromium } = require('playwright-core');

/** Firefox, which Playwright drives only in a build of its own. @type {typeof import('puppeteer-core')} */
export const puppeteer = require('puppeteer-core');

/** @type {{ contentType: (extension: string) => string | false }} */
export const mimeTypes = require('mime-types');

/** Gives this process a new, empty IndexedDB, for the modules of pkg/src that expect a browser's. */
export function installFakeIndexedDB() {
  /** @type {typeof import('fake-indexeddb')} */
  const { default: _, indexedDB: __, ...classes } = require('fake-indexeddb');
  Object.assign(globalThis, classes, { indexedDB: new classes.IDBFactory() });
}
