// A web worker without a browser: a thread of Node. The page's calls are counted by count.js as they are in worker.js.
import { pathToFileURL } from 'node:url';
import { parentPort, workerData } from 'node:worker_threads';
import { pretend } from './dawn-browser.mjs';

const port = /** @type {import('node:worker_threads').MessagePort} */ (parentPort);
await pretend(workerData.browser, (message, transfer) => port.postMessage(message, transfer));
await import('./count.js');
await import(pathToFileURL(workerData.script).href);
port.on('message', (data) => globalThis.dispatchEvent(new MessageEvent('message', { data })));
