// A file.

import { a as b } from "x";

/** Adds. */
export function add(x, y) { return b(x) + y; }
class Box { put(thing) { return new Other(thing); } }
const arrow = (x) => add(x, 1);
