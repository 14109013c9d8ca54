/** The growing body of one running reply: finished blocks as the server's HTML, the unfinished rest as text or code. */

import { decorateCode, element, part, streamedHtml } from "./message.js";
import { positionOf } from "./browser.js";

const FENCE = /(^|\n) {0,3}(`{3,}|~{3,})([^\n]*)(\n|$)/;

export class ReplyStream {
  #covered = 0; // code points that finished blocks cover
  #pending = ""; // the text after them
  #blocks = 0;
  #tail = { kind: "paragraph", language: "" };
  #tailNode = null;
  #codeText = null; // the text node of a code tail, appended to without touching the rest

  constructor(article) {
    this.article = article;
    this.body = part(article, "body");
    this.body.replaceChildren();
    streamedHtml.set(this.body, "");
    this.#showTyping();
  }

  /** A continued reply starts from the text it had: the server's blocks will cover it again from index 0. */
  restore(content) {
    this.#pending = content;
    if (content) this.#drawTail();
  }

  addDelta({ text, reasoning, tail }) {
    if (reasoning) this.#addReasoning(reasoning);
    if (tail) {
      this.#tail = tail;
      this.#codeText = null;
    }
    if (!text) return;
    this.#pending += text;
    if (this.#codeText) this.#codeText.appendData(text);
    else this.#drawTail();
  }

  addBlock({ index, html, length }) {
    if (index < this.#blocks) return;
    this.#blocks = index + 1;
    this.#removeTail();
    this.body.insertAdjacentHTML("beforeend", html);
    streamedHtml.set(this.body, streamedHtml.get(this.body) + html);
    decorateCode(this.article);
    const cut = positionOf(this.#pending, length - this.#covered);
    this.#pending = this.#pending.slice(cut);
    this.#covered = length;
    this.#drawTail();
  }

  #addReasoning(text) {
    const details = part(this.article, "reasoning");
    details.hidden = false;
    part(this.article, "reasoning-title").textContent = "Thinking…";
    part(this.article, "reasoning-text").append(text);
  }

  #drawTail() {
    this.#removeTail();
    const text = this.#pending.replace(/^\n+/, "");
    if (!text) return;
    const fence = this.#tail.kind === "code" ? FENCE.exec(text) : null;
    this.#tailNode = element("div", "tail");
    if (fence) this.#drawCode(text, fence);
    else this.#tailNode.append(textBlock(text));
    this.body.append(this.#tailNode);
  }

  /** The opening fence is not shown; what stands before it is a paragraph whose block has not come yet. */
  #drawCode(text, fence) {
    const before = text.slice(0, fence.index).trim();
    if (before) this.#tailNode.append(textBlock(before));
    const pre = element("pre");
    const code = element("code");
    pre.dataset.decorated = "";
    code.textContent = text.slice(fence.index + fence[0].length);
    pre.append(code);
    const frame = element("div", "code");
    const head = element("div", "code__head");
    head.append(element("span", "", this.#tail.language || fence[3].trim() || "code"));
    frame.append(head, pre);
    this.#tailNode.append(frame);
    if (fence[4]) this.#codeText = code.firstChild ?? code.appendChild(document.createTextNode(""));
  }

  #removeTail() {
    this.body.querySelector(".typing")?.remove();
    this.#tailNode?.remove();
    this.#tailNode = null;
    this.#codeText = null;
  }

  #showTyping() {
    const typing = element("p", "typing");
    typing.setAttribute("aria-label", "The model is working");
    typing.append(element("span"), element("span"), element("span"));
    this.body.append(typing);
  }
}

function textBlock(text) {
  return element("p", "tail__text", text);
}
