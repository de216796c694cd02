interface Shape { area(): number }
type Name = string;
enum Colour { Red }
// Squares.
export class Square implements Shape { area(): number { return make(2); } }
