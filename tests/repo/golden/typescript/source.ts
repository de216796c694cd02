interface Shape { area(): number }
type Name = string;
enum Colour { Red }
// Squares.
export class Square implements Shape { area(): number { return make(2); } }

/** Reads a number. */
export function read(text: string): number;
/** Reads the numbers of a buffer. */
export function read(buffer: Buffer, encoding?: string): number[];
export function read(source: any, encoding = "a name that is so long that it would hide all the rest"): any { return parse(source); }

/** Where a request goes. */
export interface Handler<T> extends Base<T>, Other {
  /** Its name. */
  readonly name?: string;
  retries: number; // at most
  /** Handles it. */
  handle(request: Request): void;
  handle(request: Request, response: Response): void;
  get state(): string;
  (request: Request): Response;
  new (name: string): Handler<T>;
  [header: string]: unknown;
}
/** How to connect. */
export type Options = Common & {
  port?: number; // to listen on
  /** Called when it is closed. */
  onClose(): void;
};
export type Level = "error" | "warn" /* since 2.0 */ | "silent";
export const enum Flags {
  /** Nothing. */
  None = 0,
  Read = 1 << 0, // may read
  /* may write */ Write = 1 << 1, Both = Read | Write,
  "quoted name" = 8,
}
/** Does the work. */
@Injectable({ scope: "request" })
@Other
export abstract class Service<T> extends Base<T>.Inner implements Handler<T>, Closing {
  /** Called for each. */
  @Input() handler = async (x: number): Promise<void> => { await use(x); };
  private secret = 1;
  protected readonly limit: number = 3;
  constructor(private readonly db: Db, public name?: string, plain = 1) { super(); }
  abstract open(): void;
  /** Once more. */
  @Get("/")
  @Auth()
  close(force?: boolean) {}
  static of<T>(this: void, value: T): Service<T> { return new Impl(value); }
}
export namespace Geometry.Plane {
  export const ORIGIN = 0;
  const hidden = 1;
  export function distance() { return 1; }
}
declare module "plugin" {
  function register(name: string): void;
  const VERSION: string, BUILD: number;
}
declare global {
  interface Window { /** Set by the page. */ plugin: string }
}
declare function ambient(x: number): void;
/** Its own name outside. */
const inside = (a: number) => a;
export { inside as outside, type Name };
const LIMIT = 10;
export { LIMIT };
export default inside;
