/** The messages on screen: adds, streams, replaces, scrolls. Knows the DOM and the wire's messages, but no socket. */

import { buildMessage, decorate, element, fillReply, isRunning, part, siblingsOf } from "./message.js";
import { ReplyStream } from "./reply_stream.js";
import { Scroller } from "./scroller.js";

export class ChatView extends EventTarget {
  #streams = new Map(); // message id -> ReplyStream

  constructor() {
    super();
    this.list = document.getElementById("messages");
    this.welcome = document.getElementById("welcome");
    this.scroller = new Scroller(document.getElementById("scroller"), this.list, document.getElementById("jump"));
    this.list.addEventListener("click", (event) => this.#clicked(event));
    this.list.addEventListener("htmx:beforeSwap", () => this.scroller.hold());
    this.list.addEventListener("htmx:afterSettle", () => this.#loaded());
    this.#loaded();
    this.scroller.toEnd();
  }

  get articles() {
    return [...this.list.querySelectorAll("article[data-id]")];
  }

  get last() {
    return this.articles.at(-1) ?? null;
  }

  get leafId() {
    return this.last?.dataset.id || null;
  }

  /** The reply on this branch that is being written, if one is. */
  get running() {
    return this.articles.filter(isRunning).at(-1) ?? null;
  }

  /** Brings one message into view, for a search result. */
  focus(id) {
    const article = this.find(id);
    if (!article) return;
    this.scroller.leaveEnd();
    article.scrollIntoView({ block: "center" });
    article.classList.add("message--found");
    article.focus({ preventScroll: true });
  }

  get runningIds() {
    return this.articles.filter(isRunning).map((article) => article.dataset.id);
  }

  find(id) {
    return this.list.querySelector(`article[data-id="${CSS.escape(id)}"]`);
  }

  /** Shows a message of the wire where the tree has it: after its parent, or in the place of a sibling. */
  add(message) {
    const known = this.find(message.id);
    if (known) return known;
    const parent = message.parent_id ?? "";
    const sibling = this.articles.find((article) => article.dataset.parent === parent);
    if (!sibling && parent && parent !== this.leafId) return null;
    const siblings = sibling ? [...siblingsOf(sibling), message.id] : [message.id];
    if (sibling) this.#removeFrom(sibling);
    const article = buildMessage(message, siblings);
    this.#append(article);
    return article;
  }

  startReply(message) {
    let article = this.find(message.id);
    if (article && this.#streams.has(message.id)) return;
    if (article) {
      const fresh = buildMessage(message, siblingsOf(article));
      article.replaceWith(fresh);
      article = fresh;
    } else article = this.add(message);
    if (!article) return;
    const stream = new ReplyStream(article);
    this.#streams.set(message.id, stream);
    stream.restore(message.content);
  }

  addDelta(frame) {
    this.#stream(frame.message_id)?.addDelta(frame);
  }

  addBlock(frame) {
    this.#stream(frame.message_id)?.addBlock(frame);
  }

  endReply(message) {
    this.#streams.delete(message.id);
    const article = this.find(message.id);
    if (!article) return;
    if (part(article, "failure")) fillReply(article, message);
    else article.replaceWith(buildMessage(message, siblingsOf(article)));
  }

  /** The server has taken an unsent message: it gets its place in the tree. */
  confirm(requestId, message) {
    const unsent = this.list.querySelector(`[data-request="${CSS.escape(requestId)}"]`);
    const known = this.find(message.id);
    if (!unsent || known) {
      unsent?.remove();
      return known ?? this.add(message);
    }
    const siblings = unsent.dataset.siblings ? [...unsent.dataset.siblings.split(" "), message.id] : [message.id];
    const article = buildMessage(message, siblings);
    unsent.replaceWith(article);
    return article;
  }

  /** A message that is on its way to the server. */
  showUnsent(entry, text) {
    let article = this.list.querySelector(`[data-request="${CSS.escape(entry.id)}"]`);
    if (!article) {
      article = buildMessage({ id: "", role: "user", content: entry.frame.content, parent_id: "", status: "unsent" }, []);
      article.removeAttribute("data-id");
      article.dataset.request = entry.id;
      article.querySelector(".message__bar").replaceChildren();
      const edited = entry.frame.edit_of && this.find(entry.frame.edit_of);
      if (edited) {
        article.dataset.siblings = edited.dataset.siblings || edited.dataset.id;
        this.#removeFrom(edited);
      }
      this.#append(article);
      this.scroller.toEnd();
    }
    this.#describeUnsent(article, entry, text);
  }

  get unsentIds() {
    return [...this.list.querySelectorAll("[data-request]")].map((article) => article.dataset.request);
  }

  hasUnsent(id) {
    return this.unsentIds.includes(id);
  }

  dropUnsent(id) {
    this.list.querySelector(`[data-request="${CSS.escape(id)}"]`)?.remove();
    this.#showWelcome();
  }

  /** Puts another branch on screen; `html` is the server's fragment. Of the unsent messages those stay that `isUnsent` still knows. */
  replaceBranch(html, { isUnsent = () => false } = {}) {
    this.#streams.clear();
    const unsent = [...this.list.querySelectorAll("[data-request]")].filter((article) => isUnsent(article.dataset.request));
    this.list.innerHTML = html;
    this.list.append(...unsent);
    window.htmx?.process(this.list);
    this.#loaded();
    this.scroller.refresh();
  }

  #describeUnsent(article, entry, text) {
    const bar = article.querySelector(".message__bar");
    article.classList.toggle("message--refused", Boolean(entry.error));
    bar.replaceChildren(element("span", "message__meta", text));
    if (!entry.error && !entry.doubtful) return;
    for (const [act, label] of [["resend", "Send again"], ["take-back", "Edit"], ["discard", "Discard"]]) {
      const button = element("button", "button button--small", label);
      button.type = "button";
      button.dataset.act = act;
      bar.append(button);
    }
  }

  #stream(id) {
    const known = this.#streams.get(id);
    if (known) return known;
    const article = this.find(id);
    if (!article || !isRunning(article)) return null;
    const stream = new ReplyStream(article);
    this.#streams.set(id, stream);
    return stream;
  }

  #removeFrom(article) {
    let next = article;
    while (next) {
      const following = next.nextElementSibling;
      next.remove();
      next = following;
    }
  }

  #append(article) {
    const unsent = this.list.querySelector("[data-request]");
    if (unsent && article.dataset.id) this.list.insertBefore(article, unsent);
    else this.list.append(article);
    this.#showWelcome();
  }

  /** Server-rendered messages need their words; a reply among them that runs needs a stream of its own. */
  #loaded() {
    for (const article of this.list.querySelectorAll("article:not([data-decorated])")) {
      article.dataset.decorated = "";
      decorate(article);
      if (isRunning(article)) this.startReply(this.#describe(article));
    }
    this.scroller.release();
    this.#showWelcome();
  }

  #describe(article) {
    const { id, parent, status } = article.dataset;
    const model = part(article, "meta").dataset.model;
    return { id, parent_id: parent || null, role: "assistant", status, model, content: "" };
  }

  #showWelcome() {
    const isEmpty = !this.list.querySelector("article");
    this.welcome.hidden = !isEmpty;
    this.list.hidden = isEmpty;
  }

  #clicked(event) {
    const control = event.target.closest("[data-act], .code-copy");
    const article = control?.closest("article");
    if (!article) return;
    const act = control.dataset.act ?? "copy-code";
    this.dispatchEvent(new CustomEvent("act", { detail: { act, article, control } }));
  }
}
