/** The field one writes in: grows, keeps its draft, counts near the limit, and knows when it may send. */

import { countCodePoints } from "./browser.js";

const COUNT_FROM = 0.9;

export class Composer extends EventTarget {
  #key = null; // no draft until one is opened
  #saveTimer = 0;
  #state = { running: false, waiting: false, blocked: "", warning: "" };

  constructor(store, limit) {
    super();
    this.store = store;
    this.limit = limit;
    this.form = document.getElementById("composer");
    this.field = document.getElementById("prompt");
    this.status = document.getElementById("composer-status");
    this.sendButton = document.getElementById("send");
    this.stopButton = document.getElementById("stop");
    this.editing = document.getElementById("editing");
    this.editOf = null;
    this.#listen();
  }

  get text() {
    return this.field.value;
  }

  /** Changes to another conversation's draft. */
  open(key) {
    this.saveNow();
    this.#key = key;
    this.#stopEditing();
    this.setText(this.store.get(`draft:${key}`) ?? "");
  }

  /** The new conversation got its id: what is being typed goes with it. */
  rename(key) {
    this.store.set(`draft:${this.#key}`, null);
    this.#key = key;
    this.saveNow();
  }

  setText(text) {
    this.field.value = text;
    this.#changed();
  }

  clear() {
    this.#stopEditing();
    this.setText("");
    this.saveNow();
  }

  edit(id, text) {
    if (!this.editOf) this.saveNow();
    this.editOf = id;
    this.editing.hidden = false;
    this.setText(text);
    this.focus();
    this.field.setSelectionRange(text.length, text.length);
  }

  cancelEdit() {
    if (!this.editOf) return;
    this.#stopEditing();
    this.setText(this.store.get(`draft:${this.#key}`) ?? "");
    this.focus();
  }

  focus() {
    this.field.focus({ preventScroll: true });
  }

  /** `running`: a reply is being written. `waiting`: a message has not been confirmed. `blocked`: why nothing can be sent. `warning`: why it may fail. */
  setState(changes) {
    Object.assign(this.#state, changes);
    this.#refresh();
  }

  saveNow() {
    clearTimeout(this.#saveTimer);
    if (this.#key && !this.editOf) this.store.set(`draft:${this.#key}`, this.text);
  }

  #listen() {
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.field.addEventListener("input", () => {
      this.#changed();
      clearTimeout(this.#saveTimer);
      this.#saveTimer = setTimeout(() => this.saveNow(), 250);
    });
    this.field.addEventListener("keydown", (event) => this.#keyPressed(event));
    this.stopButton.addEventListener("click", () => this.#emit("stop"));
    document.getElementById("editing-cancel").addEventListener("click", () => this.cancelEdit());
    window.addEventListener("pagehide", () => this.saveNow());
  }

  /** While an input method composes a word, Enter belongs to it; 229 is how older ones say so. */
  #keyPressed(event) {
    if (event.isComposing || event.keyCode === 229) return;
    if (event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "Escape" && this.editOf) {
      event.stopPropagation();
      this.cancelEdit();
    } else if (event.key === "ArrowUp" && !this.text) {
      this.#emit("edit-last");
    }
  }

  #submit() {
    if (this.#refusal() !== null) return;
    this.#emit("send", { content: this.text, editOf: this.editOf });
  }

  /** Why the text cannot be sent now; "" when that needs no words, null when it can. */
  #refusal() {
    if (!this.text.trim()) return "";
    if (this.#state.blocked) return this.#state.blocked;
    if ((this.#state.running || this.#state.waiting) && !this.editOf) return "";
    const over = this.#over();
    return over > 0 ? `${over.toLocaleString()} characters too many` : null;
  }

  #over() {
    return this.text.length <= this.limit ? 0 : countCodePoints(this.text) - this.limit;
  }

  #changed() {
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
    this.#refresh();
    this.#emit("changed");
  }

  #refresh() {
    const { running, blocked, warning } = this.#state;
    const refusal = this.#refusal();
    const count = this.text.length > this.limit * COUNT_FROM ? countCodePoints(this.text) : 0;
    this.sendButton.disabled = refusal !== null;
    this.sendButton.hidden = running && !this.editOf;
    this.stopButton.hidden = !running || Boolean(this.editOf);
    this.form.classList.toggle("composer--over", this.#over() > 0);
    const counter = count ? `${count.toLocaleString()} of ${this.limit.toLocaleString()}` : "";
    this.#say(refusal || blocked || counter || warning);
  }

  #say(text) {
    if (this.status.textContent !== text) this.status.textContent = text;
  }

  #stopEditing() {
    this.editOf = null;
    this.editing.hidden = true;
  }

  #emit(type, detail = {}) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
