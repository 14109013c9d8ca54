/** The list of conversations: grouped by day, paged, live; rename, pin and delete with an undo. */

import { ApiError, callApi } from "./api.js";
import { element } from "./message.js";
import { toast } from "./notices.js";

const GROUPS = ["Pinned", "Today", "Yesterday", "Last 7 days", "Earlier"];
const UNTITLED = "Conversation";

export class Sidebar extends EventTarget {
  #menuFor = null;
  #menuOpener = null;

  constructor() {
    super();
    this.aside = document.getElementById("sidebar");
    this.list = document.getElementById("conversations");
    this.more = document.getElementById("conversations-more");
    this.menu = document.getElementById("conversation-actions");
    this.backdrop = document.getElementById("sidebar-backdrop");
    this.opener = document.getElementById("sidebar-open");
    this.narrow = window.matchMedia("(max-width: 56rem)");
    this.#group();
    this.#listen();
  }

  item(id) {
    return this.list.querySelector(`[data-id="${CSS.escape(id)}"]`);
  }

  titleOf(id) {
    return this.item(id)?.querySelector("a").textContent ?? UNTITLED;
  }

  /** Adds a conversation or brings its line up to date. */
  put(conversation) {
    const known = this.item(conversation.id);
    const item = known ?? this.#newItem();
    const { id, title, pinned, is_excluded_from_training, updated_at } = conversation;
    Object.assign(item.dataset, { id, pinned: String(pinned), excluded: String(is_excluded_from_training), updated: updated_at });
    const link = item.querySelector("a");
    link.href = `/c/${id}/`;
    link.textContent = title || UNTITLED;
    item.querySelector("button").setAttribute("aria-label", `Actions for ${title || UNTITLED}`);
    if (!known) this.list.prepend(item);
    this.#group();
  }

  remove(id) {
    this.item(id)?.remove();
    this.#group();
  }

  markCurrent(id) {
    for (const link of this.list.querySelectorAll("a[aria-current]")) link.removeAttribute("aria-current");
    if (id) this.item(id)?.querySelector("a").setAttribute("aria-current", "page");
  }

  open() {
    this.aside.classList.add("sidebar--open");
    this.backdrop.hidden = false;
    this.opener.setAttribute("aria-expanded", "true");
    this.#applyWidth();
    document.getElementById("sidebar-close").focus();
  }

  close() {
    if (!this.aside.classList.contains("sidebar--open")) return;
    this.aside.classList.remove("sidebar--open");
    this.backdrop.hidden = true;
    this.opener.setAttribute("aria-expanded", "false");
    this.#applyWidth();
    this.opener.focus();
  }

  openMenu(id, opener) {
    this.#menuFor = id;
    this.#menuOpener = opener;
    const pinned = this.item(id)?.dataset.pinned === "true";
    this.menu.querySelector('[data-act="pin"]').textContent = pinned ? "Unpin" : "Pin";
    this.menu.querySelector('[data-act="exclude"]').setAttribute("aria-checked", this.item(id)?.dataset.excluded ?? "false");
    this.menu.hidden = false;
    const at = opener.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.menu;
    const below = at.bottom + height + 8 < window.innerHeight;
    this.menu.style.left = `${Math.max(8, Math.min(at.left, window.innerWidth - width - 8))}px`;
    this.menu.style.top = `${below ? at.bottom + 4 : Math.max(8, at.top - height - 4)}px`;
    opener.setAttribute("aria-expanded", "true");
    this.menu.querySelector("button").focus();
  }

  closeMenu({ focus = true } = {}) {
    if (this.menu.hidden) return;
    this.menu.hidden = true;
    this.#menuOpener?.setAttribute("aria-expanded", "false");
    if (focus) this.#menuOpener?.focus();
  }

  async rename(id) {
    const dialog = document.getElementById("rename");
    const input = document.getElementById("rename-input");
    input.value = this.titleOf(id);
    dialog.returnValue = "";
    dialog.showModal();
    input.select();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    const title = input.value.trim();
    if (dialog.returnValue === "rename" && title) await this.#change("PATCH", id, { title });
  }

  async remember(id, values) {
    return this.#change("PATCH", id, values);
  }

  async delete(id) {
    const title = this.titleOf(id);
    if (!(await this.#call("DELETE", `conversations/${id}`))) return;
    this.remove(id);
    this.dispatchEvent(new CustomEvent("deleted", { detail: { id } }));
    toast(`“${title}” was deleted.`, { action: "Undo", onAction: () => this.#restore(id) });
  }

  async #exclude(id, isExcluded) {
    if (!(await this.#change("PATCH", id, { is_excluded_from_training: isExcluded }))) return;
    toast(isExcluded ? "Kept out of training. What was taken from it is being removed." : "No longer kept out of training.");
  }

  async #restore(id) {
    const conversation = await this.#call("POST", `conversations/${id}/restore`);
    if (!conversation) return;
    this.put(conversation);
    this.dispatchEvent(new CustomEvent("restored", { detail: { conversation } }));
  }

  async #change(method, id, body) {
    const conversation = await this.#call(method, `conversations/${id}`, body);
    if (conversation) {
      this.put(conversation);
      this.dispatchEvent(new CustomEvent("changed", { detail: { conversation } }));
    }
    return conversation;
  }

  /** The answer, true when it is empty, or null after telling the reader what went wrong. */
  async #call(method, path, body) {
    try {
      return (await callApi(method, path, body)) ?? true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      toast(error.message);
      return null;
    }
  }

  async #loadMore() {
    const cursor = this.list.dataset.next;
    if (!cursor || this.more.disabled) return;
    this.more.disabled = true;
    const page = await this.#call("GET", `conversations?cursor=${encodeURIComponent(cursor)}`);
    this.more.disabled = false;
    if (!page) return;
    this.list.dataset.next = page.next_cursor ?? "";
    this.more.hidden = !page.next_cursor;
    for (const conversation of page.items) if (!this.item(conversation.id)) this.put(conversation);
    // Observed anew, it tells also when the button has stayed in view.
    this.watcher.unobserve(this.more);
    this.watcher.observe(this.more);
  }

  #newItem() {
    return document.getElementById("conversation-item").content.querySelector("li").cloneNode(true);
  }

  /** Sorts the lines under headings, in the reader's own days. */
  #group() {
    const focused = document.activeElement;
    const items = [...this.list.querySelectorAll("li[data-id]")];
    items.sort((a, b) => (a.dataset.updated < b.dataset.updated ? 1 : -1));
    const sections = GROUPS.map((name) => [name, items.filter((item) => groupOf(item) === name)]);
    for (const old of this.list.querySelectorAll(".group")) old.remove();
    for (const [name, members] of sections.reverse()) {
      if (!members.length) continue;
      const group = element("section", "group");
      const list = element("ul");
      list.append(...members);
      group.append(element("h2", "group__name", name), list);
      this.list.prepend(group);
    }
    document.getElementById("conversations-empty").hidden = items.length > 0;
    if (this.list.contains(focused)) focused.focus({ preventScroll: true });
  }

  #applyWidth() {
    const away = this.narrow.matches && !this.aside.classList.contains("sidebar--open");
    this.aside.inert = away;
    for (const behind of document.querySelectorAll(".head, .scroller, .foot")) behind.inert = this.narrow.matches && !away;
  }

  #listen() {
    this.narrow.addEventListener("change", () => this.#applyWidth());
    this.#applyWidth();
    this.opener.addEventListener("click", () => this.open());
    document.getElementById("sidebar-close").addEventListener("click", () => this.close());
    this.backdrop.addEventListener("click", () => this.close());
    document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (!this.aside.classList.contains("sidebar--open")) return;
      event.preventDefault();
      this.close();
    });
    this.more.addEventListener("click", () => this.#loadMore());
    this.watcher = new IntersectionObserver((seen) => seen[0].isIntersecting && this.#loadMore(), { root: this.list });
    this.watcher.observe(this.more);
    this.list.addEventListener("click", (event) => {
      const opener = event.target.closest('[data-act="menu"]');
      if (opener) this.openMenu(opener.closest("li").dataset.id, opener);
      const link = event.target.closest("a.item__link");
      if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button !== 0) return;
      event.preventDefault();
      this.dispatchEvent(new CustomEvent("open", { detail: { id: link.closest("li").dataset.id } }));
    });
    this.menu.addEventListener("click", (event) => this.#chosen(event.target.closest("[data-act]")));
    this.menu.addEventListener("keydown", (event) => this.#menuKey(event));
    document.addEventListener("click", (event) => {
      if (!event.target.closest('#conversation-actions, [data-act="menu"], #conversation-menu')) this.closeMenu({ focus: false });
    });
    document.getElementById("rename-form").addEventListener("submit", (event) => {
      event.preventDefault();
      document.getElementById("rename").close("rename");
    });
  }

  #chosen(control) {
    if (!control) return;
    const id = this.#menuFor;
    this.closeMenu();
    if (control.dataset.act === "rename") this.rename(id);
    if (control.dataset.act === "pin") this.#change("PATCH", id, { pinned: this.item(id)?.dataset.pinned !== "true" });
    if (control.dataset.act === "exclude") this.#exclude(id, this.item(id)?.dataset.excluded !== "true");
    if (control.dataset.act === "delete") this.delete(id);
  }

  #menuKey(event) {
    const items = [...this.menu.querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      items.at((items.indexOf(document.activeElement) + step) % items.length).focus();
    } else if (event.key === "Escape" || event.key === "Tab") {
      event.preventDefault();
      event.stopPropagation();
      this.closeMenu();
    }
  }
}

function groupOf(item) {
  if (item.dataset.pinned === "true") return "Pinned";
  const midnight = new Date();
  midnight.setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight - new Date(item.dataset.updated)) / 86_400_000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  return days <= 7 ? "Last 7 days" : "Earlier";
}
