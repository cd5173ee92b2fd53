// For bundlers that do not read `exports` (Parcel, by default): `inkbloom/element` is this file to them.
export * from './dist/element.js';
