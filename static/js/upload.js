/** Sends a file in parts and goes on where it stopped: after a pause, without a network, after a reload. No DOM here. */

import { ApiError } from "./api.js";

const RETRY_MS = [1000, 2000, 4000, 8000, 15000];
const TRANSIENT = new Set([0, 408, 425, 429, 500, 502, 503, 504]); // 409: it has ended, by another tab say

/** Events: `progress` {sent, size}, `state` {state}: sending, paused, waiting (for the network), done, failed {error}. */
export class Upload extends EventTarget {
  #file;
  #address;
  #received = new Set();
  #partSize;
  #state = "paused";
  #inFlight = 0;
  #abort = null;
  #wake = null;

  /** `address` is the import under /api/, such as `datasets/3/imports/<id>`. */
  constructor(file, { address, partSize, received = [] }) {
    super();
    this.#file = file;
    this.#address = address;
    this.#partSize = partSize;
    this.#received = new Set(received);
  }

  get state() {
    return this.#state;
  }

  get parts() {
    return Math.max(1, Math.ceil(this.#file.size / this.#partSize));
  }

  get sent() {
    let bytes = this.#inFlight;
    for (const number of this.#received) bytes += this.#slice(number).size;
    return Math.min(bytes, this.#file.size);
  }

  /** Runs until the last part is there, the upload is paused, or the server says no. */
  async start() {
    if (this.#state === "sending" || this.#state === "done") return;
    this.#set("sending");
    for (let failures = 0; this.#state === "sending" || this.#state === "waiting"; ) {
      const number = this.#next();
      if (number === null) return this.#set("done");
      try {
        await this.#send(number);
        failures = 0;
        if (this.#state === "waiting") this.#set("sending");
      } catch (error) {
        if (this.#state === "paused") return;
        if (!(error instanceof ApiError) || !TRANSIENT.has(error.status)) return this.#set("failed", error);
        this.#set("waiting");
        await this.#pauseBefore(RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
      }
    }
  }

  pause() {
    if (this.#state === "done") return;
    this.#set("paused");
    this.#abort?.abort();
    this.#wake?.();
  }

  #set(state, error = null) {
    this.#state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, error } }));
  }

  #next() {
    for (let number = 1; number <= this.parts; number++) if (!this.#received.has(number)) return number;
    return null;
  }

  #slice(number) {
    return this.#file.slice((number - 1) * this.#partSize, number * this.#partSize);
  }

  async #send(number) {
    this.#abort = new AbortController();
    try {
      // Read first: a file that was moved or changed meanwhile is not a network that is away.
      const part = await this.#slice(number).arrayBuffer();
      const received = await putBytes(`${this.#address}/parts/${number}`, part, {
        signal: this.#abort.signal,
        onProgress: (bytes) => this.#tell(bytes),
      });
      this.#received = new Set([...this.#received, number, ...received]);
    } finally {
      this.#tell(0);
    }
  }

  #tell(inFlight) {
    this.#inFlight = inFlight;
    this.dispatchEvent(new CustomEvent("progress", { detail: { sent: this.sent, size: this.#file.size } }));
  }

  /** Until the time is over, the network is back or somebody pauses. */
  #pauseBefore(milliseconds) {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        window.removeEventListener("online", done);
        this.#wake = null;
        resolve();
      };
      const timer = setTimeout(done, milliseconds);
      window.addEventListener("online", done);
      this.#wake = done;
    });
  }
}

/** XMLHttpRequest, because fetch cannot tell how much of a body has left. Returns the numbers of the parts received. */
function putBytes(path, bytes, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("PUT", `/api/${path}`);
    const { "X-CSRFToken": token } = JSON.parse(document.body.getAttribute("hx-headers"));
    request.setRequestHeader("X-CSRFToken", token);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded));
    request.addEventListener("error", () => reject(new ApiError(0)));
    request.addEventListener("abort", () => reject(new ApiError(0)));
    request.addEventListener("load", () => {
      const data = parse(request.responseText);
      if (request.status >= 200 && request.status < 300) resolve(data?.received ?? []);
      else reject(new ApiError(request.status, data ?? { message: `The server answered ${request.status}.` }));
    });
    signal.addEventListener("abort", () => request.abort());
    request.send(bytes);
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
