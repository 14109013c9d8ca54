/** Says when the page is not connected, counts down to the next attempt, and never flickers for a short gap. */

const PATIENCE_MS = 1500;

export class ConnectionBanner {
  #timer = 0;
  #ticker = 0;

  constructor(socket) {
    this.socket = socket;
    this.box = document.getElementById("connection");
    this.text = document.getElementById("connection-text");
    this.retry = document.getElementById("connection-retry");
    this.retryAt = 0;
    this.retry.addEventListener("click", () => (socket.state === "ended" ? window.location.reload() : socket.connect()));
    socket.addEventListener("state", ({ detail }) => this.#changed(detail));
    window.addEventListener("online", () => this.#write());
    window.addEventListener("offline", () => this.#write());
  }

  #changed({ state, retryAt = 0 }) {
    this.retryAt = retryAt;
    clearTimeout(this.#timer);
    if (state === "open") this.#hide();
    else if (state === "ended") this.#show();
    else if (this.box.hidden) this.#timer = setTimeout(() => this.#show(), PATIENCE_MS);
    else this.#write();
  }

  #hide() {
    clearInterval(this.#ticker);
    this.box.hidden = true;
  }

  #show() {
    this.box.hidden = false;
    clearInterval(this.#ticker);
    this.#ticker = setInterval(() => this.#write(), 1000);
    this.#write();
  }

  #write() {
    if (this.box.hidden) return;
    const words = this.#words();
    if (this.text.textContent !== words) this.text.textContent = words;
    this.retry.textContent = this.socket.state === "ended" ? "Sign in" : "Try now";
    this.retry.hidden = this.socket.state === "connecting";
  }

  #words() {
    if (this.socket.state === "ended") return "You have been signed out.";
    if (!navigator.onLine) return "You are offline. What you write is kept and sent later.";
    if (this.socket.state === "connecting") return "Reconnecting…";
    return "The connection is lost. Replies go on at the server and will be shown in full.";
  }
}
