// The package's worker, counted.
import './count.js';
// @ts-expect-error run.mjs serves it there
import '/pkg/worker.js';
