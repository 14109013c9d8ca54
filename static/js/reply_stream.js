/** The growing body of one running reply: finished blocks as the server's HTML, the unfinished rest as text or code. */

import { element, part, streamedHtml } from "./message.js";
import { positionOf } from "./browser.js";
import { tailText } from "./tail_text.js";

const FENCE = /(^|\n) {0,3}(`{3,}|~{3,})([^\n]*)(\n|$)/;

export class ReplyStream {
  #blocks = []; // the finished ones: {length, nodes, source, html}, the first two counted from the start
  #pending = ""; // the text after them
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
    part(this.article, "reasoning-title").textContent = "Thoughts";
    this.#pending += text;
    if (this.#codeText) this.#codeText.appendData(text);
    else this.#drawTail();
  }

  addBlock({ index, html, length }) {
    if (this.#blocks[index]?.length === length) return;
    this.#removeTail();
    this.#takeBack(index);
    const cut = positionOf(this.#pending, length - (this.#blocks.at(-1)?.length ?? 0));
    const source = this.#pending.slice(0, cut);
    this.#pending = this.#pending.slice(cut);
    this.body.insertAdjacentHTML("beforeend", html);
    this.#blocks.push({ length, nodes: this.body.childNodes.length, source, html });
    streamedHtml.set(this.body, streamedHtml.get(this.body) + html);
    this.#drawTail();
  }

  /** The last block of a reply that broke off goes on when the reply is continued: it comes again, longer. */
  #takeBack(index) {
    if (index >= this.#blocks.length) return;
    const dropped = this.#blocks.splice(index);
    const keep = this.#blocks.at(-1)?.nodes ?? 0;
    while (this.body.childNodes.length > keep) this.body.lastChild.remove();
    this.#pending = dropped.map((block) => block.source).join("") + this.#pending;
    streamedHtml.set(this.body, this.#blocks.map((block) => block.html).join(""));
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
    else this.#tailNode.append(tailText(text));
    this.body.append(this.#tailNode);
  }

  /** The opening fence is not shown; what stands before it is a paragraph whose block has not come yet. */
  #drawCode(text, fence) {
    const before = text.slice(0, fence.index).trim();
    if (before) this.#tailNode.append(tailText(before));
    const pre = element("pre");
    const code = element("code");
    code.textContent = text.slice(fence.index + fence[0].length);
    pre.append(code);
    const frame = element("div", "code-block");
    const head = element("div", "code-head");
    head.append(element("span", "code-language", this.#tail.language || fence[3].trim()));
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
    typing.setAttribute("aria-hidden", "true");
    typing.append(element("span"), element("span"), element("span"));
    this.body.append(typing);
  }
}
