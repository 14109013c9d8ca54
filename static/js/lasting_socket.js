/** A WebSocket that comes back by itself and notices a dead network. What its frames mean is for those who extend it.
 *
 * They give `opened()` and `received(frame)`. Event `state`: "connecting" | "open" | "waiting" (detail.retryAt tells when
 * the next attempt is), or what `final` calls the close code after which there is no coming back.
 */

const HEARTBEAT_MS = 20_000;
const SILENCE_MS = 10_000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15_000];

export class LastingSocket extends EventTarget {
  #socket = null;
  #attempt = 0;
  #retryTimer = 0;
  #heartbeatTimer = 0;
  #silenceTimer = 0;

  /** `final`: a Map of close codes to states. */
  constructor(url, final) {
    super();
    this.url = url;
    this.final = final;
    this.state = "connecting";
    window.addEventListener("online", () => this.#wake());
    window.addEventListener("offline", () => this.#probe());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#wake());
  }

  get isOpen() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  connect() {
    clearTimeout(this.#retryTimer);
    this.#setState("connecting");
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    socket.addEventListener("open", () => socket === this.#socket && this.#opened());
    socket.addEventListener("message", (event) => socket === this.#socket && this.#received(event.data));
    socket.addEventListener("close", (event) => socket === this.#socket && this.#closed(event.code));
  }

  /** Sends a frame now; false when there is no connection. */
  send(frame) {
    if (!this.isOpen) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #opened() {
    this.#attempt = 0;
    this.#setState("open");
    this.opened();
    this.#heartbeatTimer = setInterval(() => this.#probe(), HEARTBEAT_MS);
  }

  #received(data) {
    clearTimeout(this.#silenceTimer);
    const frame = JSON.parse(data);
    if (frame.type !== "pong") this.received(frame);
  }

  #closed(code) {
    clearInterval(this.#heartbeatTimer);
    clearTimeout(this.#silenceTimer);
    this.#socket = null;
    if (this.final.has(code)) return this.#setState(this.final.get(code));
    const base = BACKOFF_MS[Math.min(this.#attempt++, BACKOFF_MS.length - 1)];
    const delay = base * (0.5 + Math.random() / 2);
    this.#retryTimer = setTimeout(() => this.connect(), delay);
    this.#setState("waiting", { retryAt: Date.now() + delay });
  }

  #wake() {
    if ([...this.final.values()].includes(this.state)) return;
    if (this.#socket) this.#probe();
    else this.connect();
  }

  /** A dead network does not close a socket: a ping without an answer does. */
  #probe() {
    if (!this.send({ type: "ping" })) return;
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#drop(), navigator.onLine ? SILENCE_MS : 500);
  }

  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    this.#closed(0);
    socket.close();
  }

  #setState(state, more = {}) {
    this.state = state;
    this.emit("state", { state, ...more });
  }
}
