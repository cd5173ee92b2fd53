// The page imports ./pkg/index.js, which the server mounts there; this tells tsc where that comes from.
export * from '../../../../pkg/src/index.js';
