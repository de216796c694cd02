// A file.

import { a as b } from "x";
import React, { forwardRef } from "react";

/** Adds. */
export function add(x, y) { return b(x) + y; }
class Box { put(thing) { return new Other(thing); } }
const arrow = (x) => add(x, 1);

/** A set of things. */
@sealed
export class Store extends mixin(Box, Base) {
  /** How many fit in. */
  static LIMIT = 10;
  #items = []; // in their order
  #grow() { this.#items = [...this.#items, null]; }
  static { Store.count = 0; }
  /** Makes an empty one. */
  static make = () => new Store();
  get size() { return this.#items.length; }
  set size(n) { this.#grow(n); }
  async *all() { yield* this.#items; }
  [Symbol.iterator]() { return this.all(); }
  ['quoted name']() {}
  _hidden() {}
  constructor() {
    super();
    /** When it was made. */
    this.made = now();
  }
}

// A wrapped component.
export const Row = React.memo(forwardRef(function Inner(props, ref) {
  const local = 1;
  return inner(props, local);
}));
const Plain = memo(() => 1);
export const WIDTH = 80, { left, right: [first] } = sides();
/** Options for those who do not care. */
export const DEFAULTS = { name: "a name that is so long that nobody wants to read it twice", sizes: [1, 2, 3], depth: 12 };
let counter = 0;
/** All of it. */
export const api = {
  /** Begins. */
  start() { return begin(); },
  stop: () => {},
  run: async function (job) { return job; },
  inner: { deep() {} },
  get state() { return 1; },
  plain: 1,
};
var seconds = function (text, fallback = { unit: "seconds", factor: 1, rounding: "to the nearest" }) { return text; };
function hidden() { function local() {} }
/** @private */
export function internals() {}
export { arrow as shortcut, hidden };
export { c as d } from "./other.js";
export * as others from "./others.js";
export default class extends Store { go() {} }
