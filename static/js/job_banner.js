/** Says when what is shown may be old, and never flickers for a short gap. The jobs themselves go on at the server. */

const PATIENCE_MS = 1500;
const WORDS = {
  connecting: "Reconnecting…",
  waiting: "The connection is lost. The training goes on at the server; what is new will be shown when it is back.",
  ended: "You have been signed out.",
  refused: "You may no longer see trainings.",
  gone: "This job is no longer there.",
};

export class JobBanner {
  #timer = 0;

  constructor(socket) {
    this.socket = socket;
    this.box = document.getElementById("connection");
    this.text = document.getElementById("connection-text");
    this.retry = document.getElementById("connection-retry");
    this.retry.addEventListener("click", () => (socket.state === "waiting" ? socket.connect() : window.location.reload()));
    socket.addEventListener("state", ({ detail }) => this.#changed(detail.state));
  }

  #changed(state) {
    clearTimeout(this.#timer);
    if (state === "open") this.box.hidden = true;
    else if (!this.box.hidden || !["connecting", "waiting"].includes(state)) this.#show();
    else this.#timer = setTimeout(() => this.#show(), PATIENCE_MS);
  }

  #show() {
    const { state } = this.socket;
    const words = state === "waiting" && !navigator.onLine ? "You are offline. The training goes on at the server." : WORDS[state];
    if (this.text.textContent !== words) this.text.textContent = words;
    this.retry.textContent = state === "ended" ? "Sign in" : "Try now";
    this.retry.hidden = state === "connecting" || state === "refused" || state === "gone";
    this.box.hidden = false;
  }
}
