/** What the reader thinks of a reply: thumbs, a corrected answer, the better of several; and what may become of it. */

import { ApiError, callApi } from "./api.js";
import { element, correctionOf, part, ratingOf, showOpinions } from "./message.js";
import { announce, toast } from "./notices.js";

const ACTS = new Set(["good", "bad", "correct", "choose"]);
const GOOD = 1;
const BAD = -1;
const REASONS = {
  [GOOD]: { act: "good", rated: "Rated as good. Below the reply you can say why.", title: "What was good about it?", comment: "In your own words" },
  [BAD]: { act: "bad", rated: "Rated as bad.", title: "What was wrong with it?", comment: "Anything to add?" },
};

export class FeedbackDesk {
  #article = null; // whom the open dialog is about
  #rating = 0; // and which thumb it asks about
  #drafts = new Map(); // message id -> a correction that was begun and not saved
  #busy = new Set();

  constructor(consents, conversation) {
    this.consents = consents;
    this.conversation = conversation;
    this.reasons = document.getElementById("feedback");
    this.reasonsForm = document.getElementById("feedback-form");
    this.correction = document.getElementById("correction");
    this.correctionForm = document.getElementById("correction-form");
    this.text = document.getElementById("correction-text");
    this.error = document.getElementById("correction-error");
    this.#listen();
  }

  act(act, article) {
    if (!ACTS.has(act)) return;
    if (act === "good") this.#thumb(article, GOOD);
    if (act === "bad") this.#thumb(article, BAD);
    if (act === "choose") this.#choose(article);
    if (act === "correct") this.#openCorrection(article);
  }

  // --- thumbs ---

  /** The thumb that is up goes down again. A bad rating, and a good one with reasons, opens them instead: there it can be taken back. */
  async #thumb(article, rating) {
    const said = ratingOf(article);
    const isOn = said.rating === rating;
    if (isOn && (rating === BAD || said.comment)) return this.#openReasons(article, rating);
    if (!(await this.#change(isOn ? "DELETE" : "PUT", article, "feedback", isOn ? undefined : { rating }))) return;
    announce(isOn ? "Rating taken back." : REASONS[rating].rated);
    if (!isOn && rating === BAD) this.#openReasons(article, rating);
    else this.#note(isOn ? null : article, { asks: rating === GOOD });
  }

  /** Every tag names a fault: a good rating is not asked for them, and keeps those that a program gave it. */
  #openReasons(article, rating) {
    this.#article = article;
    this.#rating = rating;
    const { comment, tags } = ratingOf(article);
    for (const box of this.reasonsForm.querySelectorAll("input")) box.checked = tags.includes(box.value);
    this.reasonsForm.elements.comment.value = comment;
    const { title, comment: label } = REASONS[rating];
    document.getElementById("feedback-title").textContent = title;
    document.getElementById("feedback-comment-label").textContent = label;
    document.getElementById("feedback-tags").hidden = rating === GOOD;
    this.#open(this.reasons);
    if (rating === GOOD) this.reasonsForm.elements.comment.focus();
  }

  async #sendReasons() {
    const data = new FormData(this.reasonsForm);
    const feedback = { rating: this.#rating, comment: String(data.get("comment")), tags: data.getAll("tags") };
    if (!(await this.#change("PUT", this.#article, "feedback", feedback))) return;
    this.reasons.close();
    announce("Thank you. Your reasons are kept.");
  }

  // --- corrections ---

  #openCorrection(article) {
    this.#article = article;
    const { id, source } = article.dataset;
    const body = part(article, "body").cloneNode(true);
    for (const button of body.querySelectorAll("button")) button.remove();
    document.getElementById("correction-original").replaceChildren(...body.childNodes);
    this.text.value = this.#drafts.get(id) ?? (correctionOf(article) || source);
    document.getElementById("correction-remove").hidden = !correctionOf(article);
    this.#refuse("");
    this.#open(this.correction);
    this.text.focus();
    this.text.setSelectionRange(0, 0);
    this.text.scrollTop = 0;
  }

  async #saveCorrection() {
    const article = this.#article;
    const saved = await this.#change("PUT", article, "correction", { content: this.text.value }, (message) => this.#refuse(message));
    if (!saved) return;
    this.#drafts.delete(article.dataset.id);
    this.correction.close();
    announce("Your correction is kept beside the answer.");
    this.#note(article);
  }

  async #removeCorrection() {
    const article = this.#article;
    if (!(await this.#change("DELETE", article, "correction"))) return;
    this.#drafts.delete(article.dataset.id);
    this.correction.close();
    announce("The correction is removed.");
  }

  #refuse(message) {
    this.error.textContent = message;
    this.error.hidden = !message;
  }

  // --- the better of several ---

  async #choose(article) {
    const isOn = part(article, "choose").getAttribute("aria-pressed") === "true";
    if (!(await this.#change(isOn ? "DELETE" : "PUT", article, "choice"))) return;
    announce(isOn ? "Choice taken back." : "Chosen as the better one.");
    this.#note(isOn ? null : article);
  }

  // --- what may become of it ---

  /** One line under the reply that was judged last; beside it, after a thumb up, the offer to say more. */
  #note(article, { asks = false } = {}) {
    document.querySelector(".message > .judged")?.remove();
    if (!article) return;
    const note = element("div", "judged");
    if (asks) note.append(this.#offer(article));
    note.append(element("p", "training-line"));
    article.append(note);
    this.#explain();
  }

  #offer(article) {
    const button = element("button", "button button--small button--quiet", "Say what was good");
    button.type = "button";
    button.setAttribute("aria-haspopup", "dialog");
    button.addEventListener("click", () => this.#openReasons(article, GOOD));
    return button;
  }

  #open(dialog) {
    this.#note(null);
    dialog.returnValue = "";
    dialog.showModal();
    this.#explain();
  }

  /** Asked anew each time: the setting may have been changed in another tab. */
  async #explain() {
    this.#fillLines();
    const me = await callApi("GET", "me").catch(() => null);
    if (me) this.consents = me.training_consent;
    this.#fillLines();
  }

  #fillLines() {
    for (const line of document.querySelectorAll(".training-line")) line.replaceChildren(...this.#words());
  }

  #words() {
    const link = element("a", "", this.consents ? "Change this" : "Settings");
    link.href = "/settings/#training";
    if (this.conversation()?.is_excluded_from_training) return ["Not used for training: this conversation is kept out of it."];
    if (this.consents) return ["May be used for training, as you allowed. ", link];
    return ["Not used for training: you have not allowed it. ", link];
  }

  // --- the server ---

  /** True when it is kept. A second press while the first is on its way does nothing. */
  async #change(method, article, door, body, refuse = toast) {
    const { id } = article.dataset;
    if (this.#busy.has(id)) return false;
    this.#busy.add(id);
    try {
      showOpinions(article, await callApi(method, `messages/${id}/${door}`, body));
      return true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      refuse(error.message);
      return false;
    } finally {
      this.#busy.delete(id);
    }
  }

  #listen() {
    this.reasonsForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#sendReasons();
    });
    document.getElementById("feedback-remove").addEventListener("click", async () => {
      if (!(await this.#change("DELETE", this.#article, "feedback"))) return;
      this.reasons.close();
      announce("Rating taken back.");
    });
    // What opened it may be gone: the offer under a good answer goes when it is taken.
    this.reasons.addEventListener("close", () => this.#article.querySelector(`[data-act="${REASONS[this.#rating].act}"]`).focus({ preventScroll: true }));
    this.correctionForm.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#saveCorrection();
    });
    document.getElementById("correction-remove").addEventListener("click", () => this.#removeCorrection());
    this.text.addEventListener("input", () => {
      this.#drafts.set(this.#article.dataset.id, this.text.value);
      this.#refuse("");
    });
    // The button that opened it may be gone: which of the two is shown depends on whether there is a correction.
    this.correction.addEventListener("close", () => {
      const openers = [...this.#article.querySelectorAll('[data-act="correct"]')];
      openers.find((button) => button.checkVisibility())?.focus({ preventScroll: true });
    });
  }
}
