/** The protocol of /ws/jobs/ and /ws/jobs/<id>/: connects, subscribes from where it was, comes back. Knows no DOM element.
 *
 * Events: every frame of the server under its own `type` (detail: the frame), and
 *   state   "connecting" | "open" | "waiting" | "ended" | "refused" | "gone"
 */

const HEARTBEAT_MS = 20_000;
const SILENCE_MS = 10_000;
const BACKOFF_MS = [500, 1000, 2000, 4000, 8000, 15_000];
const FINAL = new Map([[4401, "ended"], [4403, "refused"], [4404, "gone"]]);

export class JobSocket extends EventTarget {
  #socket = null;
  #attempt = 0;
  #retryTimer = 0;
  #heartbeatTimer = 0;
  #silenceTimer = 0;

  /** `seen` says from where to go on: {after_event, after_step}; asked at every connection. */
  constructor(path, seen = () => ({})) {
    super();
    const scheme = window.location.protocol === "https:" ? "wss" : "ws";
    this.url = `${scheme}://${window.location.host}${path}`;
    this.seen = seen;
    this.state = "connecting";
    window.addEventListener("online", () => this.#wake());
    window.addEventListener("offline", () => this.#probe());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#wake());
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

  #opened() {
    this.#attempt = 0;
    this.#send({ type: "job.subscribe", ...this.seen() });
    this.#setState("open");
    this.#heartbeatTimer = setInterval(() => this.#probe(), HEARTBEAT_MS);
  }

  #received(data) {
    clearTimeout(this.#silenceTimer);
    const frame = JSON.parse(data);
    if (frame.type !== "pong") this.dispatchEvent(new CustomEvent(frame.type, { detail: frame }));
  }

  #closed(code) {
    clearInterval(this.#heartbeatTimer);
    clearTimeout(this.#silenceTimer);
    this.#socket = null;
    if (FINAL.has(code)) return this.#setState(FINAL.get(code));
    const base = BACKOFF_MS[Math.min(this.#attempt++, BACKOFF_MS.length - 1)];
    this.#retryTimer = setTimeout(() => this.connect(), base * (0.5 + Math.random() / 2));
    this.#setState("waiting");
  }

  #wake() {
    if ([...FINAL.values()].includes(this.state)) return;
    if (this.#socket) this.#probe();
    else this.connect();
  }

  /** A dead network does not close a socket: a ping without an answer does. */
  #probe() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    this.#send({ type: "ping" });
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#drop(), navigator.onLine ? SILENCE_MS : 500);
  }

  #drop() {
    const socket = this.#socket;
    if (!socket) return;
    this.#closed(0);
    socket.close();
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #setState(state) {
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state } }));
  }
}
