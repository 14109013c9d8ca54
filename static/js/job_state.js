/** The part of a page that the server draws anew when a job has become something else. What somebody types is left alone. */

import { fetchFragment } from "./api.js";
import { writeMoments } from "./job_common.js";

const PATIENCE_MS = 1000;

export class JobState {
  #timer = 0;

  /** `onDrawn` is called with the job after each drawing. */
  constructor(id, path, onDrawn = () => {}) {
    this.id = id;
    this.path = path;
    this.onDrawn = onDrawn;
    this.job = null;
  }

  get box() {
    return document.getElementById(this.id);
  }

  update(job) {
    this.job = job;
    if (job.revision !== this.box.dataset.revision && !this.#timer) this.#draw();
  }

  async #draw() {
    this.#timer = -1;
    const html = this.#isBusy() ? null : await fetchFragment(this.path);
    if (html !== null && !this.#isBusy()) this.#replace(html);
    // Drawn from an older state than is known, or not at all: once more, in a moment.
    const isOld = this.job.revision !== this.box.dataset.revision;
    this.#timer = isOld ? setTimeout(() => this.#draw(), PATIENCE_MS) : 0;
  }

  #replace(html) {
    const hadFocus = this.box.contains(document.activeElement);
    const before = this.#heading();
    this.box.outerHTML = html;
    writeMoments(this.box);
    if (hadFocus) document.getElementById("main").focus();
    this.onDrawn(this.job);
    if (this.#heading() !== before) document.getElementById("announcer").textContent = this.#heading();
  }

  #isBusy() {
    const field = this.box.querySelector("input:not([type=hidden]), textarea");
    return Boolean(field && (field === document.activeElement || field.value));
  }

  #heading() {
    return this.box.querySelector("h2")?.textContent.replace(/\s+/g, " ").trim() ?? "";
  }
}
