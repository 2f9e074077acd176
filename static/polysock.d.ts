/* Types of polysock.mjs (and of polysock.js as a CommonJS module; as a script it sets PolySock, io and polysock). */

export type TransportName =
  | 'websocket' | 'xhr-streaming' | 'eventsource' | 'htmlfile' | 'xdr-streaming' | 'iframe-eventsource' | 'iframe-htmlfile'
  | 'xhr-polling' | 'xdr-polling' | 'iframe-xhr-polling' | 'jsonp-polling';

/** Every error that polysock reports: the message names all of it, the properties say it apart. */
export interface PolySockError extends Error {
  name: 'PolySockError';
  /** What was being done. */
  step: string;
  transport?: TransportName;
  /** HTTP status, where one was seen. */
  status?: number;
  /** Close code of the connection. */
  code?: number;
  /** Where to look. */
  hint?: string;
  /** What the server sent along with a refusal. */
  data?: unknown;
  /** One for each transport that was tried or passed over. */
  causes?: PolySockError[];
}

export interface ConnectionOptions {
  /** The transports that may be used, in this order; all by default. */
  transports?: TransportName | TransportName[];
  /** These are tried last. */
  avoid?: TransportName[];
  /** Keep in localStorage which transport worked (true). */
  remember?: boolean;
  /** Milliseconds that a transport has to open; measured by default. */
  openTimeout?: number;
  /** Milliseconds of silence after which the connection counts as lost; 0 for never (70000). */
  silence?: number;
  /** Send cookies to other origins, where the server allows it (true). */
  credentials?: boolean;
  /** An answer of /info to use instead of asking. */
  info?: { websocket?: boolean; cookie_needed?: boolean };
  /** Milliseconds before the first retry (1000). */
  reconnectionDelay?: number;
  /** Ceiling of that, which doubles each time (10000). */
  reconnectionDelayMax?: number;
  /** 0 to 1: how far chance moves a delay (0.5). */
  randomizationFactor?: number;
  /** Retries until it gives up (Infinity). */
  reconnectionAttempts?: number;
}

export interface PolySockOptions extends ConnectionOptions {
  /** Open again when the connection is lost (false). */
  reconnect?: boolean;
  /** The subprotocol to report, where the page offers it. */
  protocol?: string;
}

export interface PolySockEvent { type: string; target: PolySock; currentTarget: PolySock; }
export interface PolySockMessageEvent extends PolySockEvent { type: 'message'; data: string; origin: string; lastEventId: string; }
export interface PolySockCloseEvent extends PolySockEvent {
  type: 'close'; code: number; reason: string; wasClean: boolean; error: PolySockError | null;
}
export interface PolySockErrorEvent extends PolySockEvent { type: 'error'; error: PolySockError; message: string; }
export interface PolySockReconnectingEvent extends PolySockEvent {
  type: 'reconnecting'; delay: number; attempt: number; code: number; reason: string; error: PolySockError | null;
}
export interface PolySockEventMap {
  open: PolySockEvent;
  message: PolySockMessageEvent;
  error: PolySockErrorEvent;
  close: PolySockCloseEvent;
  reconnecting: PolySockReconnectingEvent;
}

/** The W3C's WebSocket interface over whatever transport works. It carries text. */
export class PolySock {
  constructor(url: string, options?: PolySockOptions);
  constructor(url: string, protocols?: string | string[] | null, options?: PolySockOptions);
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSING: 2;
  static readonly CLOSED: 3;
  readonly CONNECTING: 0;
  readonly OPEN: 1;
  readonly CLOSING: 2;
  readonly CLOSED: 3;
  readonly readyState: 0 | 1 | 2 | 3;
  readonly bufferedAmount: number;
  readonly url: string;
  readonly protocol: string;
  readonly extensions: string;
  binaryType: 'blob' | 'arraybuffer';
  /** The transport in use, once it is open. */
  readonly transport: TransportName | null;
  onopen: ((this: PolySock, event: PolySockEvent) => void) | null;
  onmessage: ((this: PolySock, event: PolySockMessageEvent) => void) | null;
  onerror: ((this: PolySock, event: PolySockErrorEvent) => void) | null;
  onclose: ((this: PolySock, event: PolySockCloseEvent) => void) | null;
  send(data: string): void;
  close(code?: number, reason?: string): void;
  addEventListener<Name extends keyof PolySockEventMap>(
    type: Name, listener: ((this: PolySock, event: PolySockEventMap[Name]) => void) | { handleEvent(event: PolySockEventMap[Name]): void },
    options?: boolean | { once?: boolean },
  ): void;
  removeEventListener(type: string, listener: unknown): void;
  dispatchEvent(event: { type: string }): boolean;
}

export interface IoOptions extends ConnectionOptions {
  /** Where the server is mounted (/polysock). */
  path?: string;
  /** Added to the URL of every request. */
  query?: string | Record<string, string | number | boolean>;
  /** Sent when a namespace is joined; a function is asked each time, so that tokens do not go stale. */
  auth?: object | ((send: (auth: object) => void) => void);
  /** Come back after a loss (true). */
  reconnection?: boolean;
  /** Connect without being told (true). */
  autoConnect?: boolean;
  /** Do not share the connection of other sockets (false). */
  forceNew?: boolean;
  /** Milliseconds that the server has to answer when a namespace is joined (20000). */
  timeout?: number;
  /** Messages, and their bytes, that wait while offline (1000 and 1000000); more is an error event. */
  bufferMessages?: number;
  bufferBytes?: number;
  /** Longer messages are an error event instead of a lost connection. */
  maxMessageBytes?: number;
}

export interface LossDetails {
  code: number;
  reason: string;
  transport: TransportName | null;
  error?: PolySockError;
  /** Whether it will be tried again. */
  returns?: boolean;
}

export interface SocketEvents {
  connecting: (transport?: TransportName) => void;
  connect: () => void;
  connect_failed: (error: PolySockError, willRetry: boolean) => void;
  disconnect: (reason: string, details: LossDetails) => void;
  reconnecting: (delay: number, attempt: number, error: PolySockError) => void;
  reconnect: (transport: TransportName, attempts: number) => void;
  reconnect_failed: (error: PolySockError) => void;
  error: (error: PolySockError) => void;
  message: (...args: any[]) => void;
}

/** One namespace. */
export interface Socket {
  readonly id: string | null;
  readonly name: string;
  readonly nsp: string;
  readonly connected: boolean;
  readonly disconnected: boolean;
  readonly io: Manager;
  /** Drops what is emitted while offline. */
  readonly volatile: { emit(event: string, ...args: any[]): Socket };
  on<Name extends keyof SocketEvents>(event: Name, handler: SocketEvents[Name]): this;
  on(event: string, handler: (...args: any[]) => void): this;
  addListener(event: string, handler: (...args: any[]) => void): this;
  once<Name extends keyof SocketEvents>(event: Name, handler: SocketEvents[Name]): this;
  once(event: string, handler: (...args: any[]) => void): this;
  off(event?: string, handler?: (...args: any[]) => void): this;
  removeListener(event?: string, handler?: (...args: any[]) => void): this;
  removeAllListeners(event?: string): this;
  listeners(event: string): Array<(...args: any[]) => void>;
  /** A function as the last argument gets the answer. ArrayBuffers, typed arrays and Blobs travel too. */
  emit(event: string, ...args: any[]): this;
  send(...args: any[]): this;
  write(...args: any[]): this;
  /** The answer's function then gets an error first, which is set when none came in time. */
  timeout(ms: number): { emit(event: string, ...args: any[]): Socket };
  /** Another namespace on the same connection. */
  of(namespace: string): Socket;
  connect(): this;
  open(): this;
  disconnect(): this;
  close(): this;
}

export interface Manager {
  readonly url: string;
  readonly transport: TransportName | null;
  readonly options: IoOptions;
}

export interface Io {
  (url?: string, options?: IoOptions): Socket;
  (options: IoOptions): Socket;
  connect: Io;
  readonly version: string;
}

export const io: Io;

export interface InstallOptions extends ConnectionOptions {
  /** Also where the browser has a WebSocket. */
  force?: boolean;
  /** From the URL that the page asks for to that of a SockJS endpoint. */
  map?: (url: string) => string;
  protocol?: string;
}

/** Gives the page a window.WebSocket; returns whether it now has ours. */
export function install(options?: InstallOptions): boolean;

declare const polysock: {
  readonly version: string;
  readonly PolySock: typeof PolySock;
  readonly io: Io;
  readonly install: typeof install;
  readonly transports: TransportName[];
  /** Forget which transports worked. */
  forget(): void;
};
export default polysock;

declare global {
  interface Window {
    polysock: typeof polysock;
    PolySock: typeof PolySock;
    io: Io;
  }
}
