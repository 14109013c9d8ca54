/** Keeps the newest words in view while the reader is at the end, and leaves the page alone while he is not. */

const NEAR_END = 56;

export class Scroller {
  #atEnd = true;
  #lastTop = 0;
  #held = null;

  constructor(container, content, jump) {
    this.container = container;
    this.content = content;
    this.jump = jump;
    container.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    jump.addEventListener("click", () => this.toEnd());
    this.observer = new ResizeObserver(() => this.refresh());
    this.observer.observe(content);
    this.observer.observe(container);
  }

  get atEnd() {
    return this.#atEnd;
  }

  toEnd() {
    this.#atEnd = true;
    this.refresh();
    this.jump.hidden = true;
  }

  leaveEnd() {
    this.#atEnd = false;
  }

  /** After the content grew. */
  refresh() {
    if (this.#atEnd) this.container.scrollTop = this.container.scrollHeight;
    else this.jump.hidden = this.#distance() < NEAR_END;
  }

  /** Remembers where the first message stands, before earlier ones are put above it. */
  hold() {
    const anchor = this.content.querySelector("article");
    this.#held = anchor && { anchor, top: anchor.getBoundingClientRect().top };
  }

  release() {
    if (!this.#held) return;
    const { anchor, top } = this.#held;
    this.#held = null;
    this.container.scrollTop += anchor.getBoundingClientRect().top - top;
  }

  #distance() {
    return this.container.scrollHeight - this.container.scrollTop - this.container.clientHeight;
  }

  /** Only a move upwards is the reader's wish to stay: words that arrive lengthen the distance without one. */
  #scrolled() {
    const top = this.container.scrollTop;
    if (this.#distance() < NEAR_END) this.#atEnd = true;
    else if (top < this.#lastTop - 1) this.#atEnd = false;
    this.#lastTop = top;
    this.jump.hidden = this.#atEnd;
  }
}
