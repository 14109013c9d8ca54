/** The chat page: joins socket, view, composer, sidebar, picker and options. */

import { callApi, fetchFragment } from "./api.js";
import { Store } from "./browser.js";
import { ChatSocket } from "./chat_socket.js";
import { ChatView } from "./chat_view.js";
import { Composer } from "./composer.js";
import { ConnectionBanner } from "./connection_banner.js";
import { copyFrom } from "./copying.js";
import { FeedbackDesk } from "./feedback.js";
import { part, setModelNames, showOpinions, siblingsOf } from "./message.js";
import { ModelPicker } from "./model_picker.js";
import { announce, toast } from "./notices.js";
import { OptionsDrawer } from "./options.js";
import { Outbox, isDoubtful } from "./outbox.js";
import { listenForShortcuts } from "./shortcuts.js";
import { Sidebar } from "./sidebar.js";
import { showWelcome } from "./welcome.js";

const LEAF_SETTLES_MS = 400;

class ChatPage {
  #opening = 0; // counts the conversations asked for: the one asked for last is shown
  #isFresh; // the page came with its conversation, and has been connected ever since

  constructor(data) {
    this.data = data;
    this.conversation = data.conversation;
    this.#isFresh = Boolean(data.conversation);
    setModelNames(new Map(data.models.map((model) => [model.slug, model.name])));
    this.store = new Store(data.user_id);
    this.outbox = new Outbox(data.user_id);
    this.socket = new ChatSocket(socketUrl(), this.outbox);
    this.view = new ChatView();
    this.composer = new Composer(this.store, data.max_message_chars);
    this.picker = new ModelPicker(data.models);
    this.options = new OptionsDrawer();
    this.sidebar = new Sidebar();
    this.banner = new ConnectionBanner(this.socket);
    this.feedback = new FeedbackDesk(data.training_consent, () => this.conversation);
    this.#listenToPage();
    this.#listenToSocket();
    this.#shown();
    this.composer.open(this.#key);
    this.#showOutbox();
    if (data.focus) this.view.focus(data.focus);
    this.socket.connect();
    history.replaceState({ id: this.#id }, "");
  }

  get #id() {
    return this.conversation?.id ?? null;
  }

  get #key() {
    return this.#id ?? "new";
  }

  // --- opening ---

  /** `record`: the method of `history` that keeps the address, none where it is right already. */
  async open(id, { record = "pushState" } = {}) {
    const opening = ++this.#opening;
    this.sidebar.close();
    if (id === this.#id) return this.#keepAddress(record);
    const [conversation, html] = id ? await this.#load(id) : [null, ""];
    if (opening !== this.#opening) return;
    if (id && (!conversation || html === null)) return window.location.assign(`/c/${id}/`);
    if (this.#id) this.socket.unsubscribe(this.#id);
    this.conversation = conversation;
    this.#keepAddress(record);
    this.view.replaceBranch(html);
    this.#shown();
    this.composer.open(this.#key);
    this.#showOutbox();
    this.view.scroller.toEnd();
    this.composer.focus();
  }

  /** Going back changes the address before the conversation is there: it may be right already, or wrong again. */
  #keepAddress(record) {
    const path = this.#id ? `/c/${this.#id}/` : "/";
    if (record && window.location.pathname !== path) history[record]({ id: this.#id }, "", path);
  }

  async #load(id) {
    return Promise.all([callApi("GET", `conversations/${id}`).catch(() => null), fetchFragment(`/c/${id}/messages/`)]);
  }

  /** Brings title, picker, options and subscription in line with the conversation on screen. */
  #shown() {
    const { conversation } = this;
    this.#showTitle();
    document.getElementById("conversation-menu").hidden = !conversation;
    const { system_prompt = "", options = {} } = conversation ?? this.store.get("options:new") ?? {};
    this.options.set({ ...options, ...(system_prompt ? { system_prompt } : {}) });
    this.#pick(conversation?.model || this.#wanted() || this.picker.firstAvailable(this.data.default_model));
    if (conversation) {
      this.sidebar.put(conversation);
      this.socket.subscribe(conversation.id, this.view.runningIds);
    }
    this.sidebar.markCurrent(this.#id);
    this.#refresh();
  }

  /** What the address asked for, once: the next new conversation begins as usual. */
  #wanted() {
    const wanted = this.conversation ? "" : this.data.wanted_model;
    this.data.wanted_model = "";
    return wanted;
  }

  #showTitle() {
    const title = this.conversation ? this.conversation.title || "Conversation" : "New conversation";
    document.getElementById("title").textContent = title;
    document.title = `${title} · Dialoop`;
    document.getElementById("excluded").hidden = !this.conversation?.is_excluded_from_training;
  }

  #showOutbox() {
    for (const entry of this.outbox.mine()) {
      if (entry.frame.conversation_id === this.#id) this.#showUnsent(entry);
    }
  }

  #showUnsent(entry) {
    const doubtful = isDoubtful(entry);
    let text = this.socket.isOpen ? "Sending…" : "Will be sent when the connection is back.";
    if (doubtful) text = "Nobody confirmed that this was sent.";
    if (entry.error) text = `Not sent. ${entry.error.message}${waitText(entry.error)}`;
    this.view.showUnsent({ ...entry, doubtful }, text);
  }

  // --- the reader's doings ---

  #listenToPage() {
    const { composer, options, picker, sidebar, view } = this;
    composer.addEventListener("send", ({ detail }) => this.#send(detail));
    composer.addEventListener("stop", () => this.#stop());
    composer.addEventListener("edit-last", () => this.#editLast());
    picker.addEventListener("picked", ({ detail }) => this.#picked(detail.slug));
    picker.addEventListener("refreshed", () => this.#pick(picker.slug));
    options.addEventListener("changed", ({ detail }) => this.#optionsChanged(detail.values));
    view.addEventListener("act", ({ detail }) => this.#act(detail));
    sidebar.addEventListener("open", ({ detail }) => this.open(detail.id));
    sidebar.addEventListener("deleted", ({ detail }) => detail.id === this.#id && this.open(null));
    sidebar.addEventListener("restored", ({ detail }) => this.open(detail.conversation.id));
    sidebar.addEventListener("changed", ({ detail }) => this.#conversationChanged(detail.conversation));
    const menu = document.getElementById("conversation-menu");
    menu.addEventListener("click", () => sidebar.openMenu(this.#id, menu));
    for (const link of document.querySelectorAll('a[href="/"]')) {
      link.addEventListener("click", (event) => {
        if (event.ctrlKey || event.metaKey || event.shiftKey) return;
        event.preventDefault();
        this.open(null).then(() => composer.focus());
      });
    }
    document.getElementById("examples").addEventListener("click", (event) => {
      const example = event.target.closest("button");
      if (!example) return;
      composer.setText(example.dataset.text);
      composer.focus();
    });
    window.addEventListener("popstate", (event) => this.open(event.state?.id ?? null, { record: null }));
    listenForShortcuts({ stop: () => this.#stop(), create: () => this.open(null), write: () => composer.focus() });
  }

  #send({ content, editOf }) {
    const fields = {
      content,
      conversation_id: this.#id,
      model: this.picker.slug || null,
      options: this.options.values,
      ...(editOf ? { edit_of: editOf } : {}),
    };
    this.composer.clear();
    const entry = this.socket.createMessage(fields);
    this.#showUnsent(entry);
    this.#refresh();
  }

  #stop() {
    const running = this.view.running;
    if (!running) return;
    if (!this.socket.send({ type: "reply.cancel", message_id: running.dataset.id })) toast("Not connected. The reply goes on until the connection is back.");
  }

  #editLast() {
    const last = this.view.articles.filter((article) => article.classList.contains("message--user")).at(-1);
    if (last) this.#edit(last);
  }

  #edit(article) {
    this.composer.edit(article.dataset.id, part(article, "body").textContent);
  }

  #act({ act, article, control }) {
    const id = article?.dataset.id;
    this.feedback.act(act, article);
    if (act === "copy") copyFrom(control, article.dataset.source ?? part(article, "body").textContent);
    if (act === "copy-code") copyFrom(control, control.closest(".code-block").querySelector("pre").textContent);
    if (act === "edit") this.#edit(article);
    if (act === "regenerate") this.#request({ type: "reply.create", conversation_id: this.#id, parent_id: article.dataset.parent, model: this.picker.slug || null, options: this.options.values });
    if (act === "continue") this.#request({ type: "reply.continue", message_id: id });
    if (act === "previous" || act === "next") this.#select(article, act === "next" ? 1 : -1);
    if (act === "resend" || act === "discard" || act === "take-back") this.#settleUnsent(act, article.dataset.request);
  }

  #request(frame) {
    if (!this.socket.send(frame)) toast("Not connected. Try again when the connection is back.");
  }

  #select(article, step) {
    const siblings = siblingsOf(article);
    const message_id = siblings[siblings.indexOf(article.dataset.id) + step];
    if (message_id) this.#request({ type: "conversation.select", conversation_id: this.#id, message_id });
  }

  #settleUnsent(act, id) {
    const entry = this.outbox.find(id);
    this.view.dropUnsent(id);
    if (entry && act === "resend") this.#showUnsent(this.socket.retryMessage(id));
    else this.outbox.remove(id);
    if (entry && act === "take-back") {
      this.composer.setText(entry.frame.content);
      this.composer.focus();
    }
    if (act !== "resend" && entry?.frame.edit_of) this.#reloadBranch();
    this.#refresh();
  }

  #picked(slug) {
    this.#pick(slug);
    if (this.conversation) this.sidebar.remember(this.#id, { model: slug });
  }

  #pick(slug) {
    this.picker.select(slug);
    this.options.showFor(this.picker.task);
    this.composer.setState({ blocked: this.picker.blocked, warning: this.picker.problem });
    const note = document.getElementById("foot-note");
    note.textContent = this.picker.about || "Models can be wrong. Check what matters.";
    note.classList.toggle("foot__note--model", Boolean(this.picker.about));
    showWelcome(this.picker.about || (this.picker.model ? `${this.picker.model.name} will answer.` : ""), this.picker.examples);
  }

  #optionsChanged({ system_prompt = "", ...options }) {
    if (!this.conversation) return this.store.set("options:new", { system_prompt, options });
    const before = JSON.stringify([this.conversation.system_prompt, this.conversation.options]);
    if (before !== JSON.stringify([system_prompt, options])) this.sidebar.remember(this.#id, { system_prompt, options });
  }

  // --- what the server says ---

  #listenToSocket() {
    const on = (type, handle) => this.socket.addEventListener(type, ({ detail }) => handle(detail));
    on("state", ({ state }) => this.#connectionChanged(state));
    on("conversation.created", (frame) => this.#conversationCreated(frame));
    on("conversation.updated", ({ conversation }) => {
      this.sidebar.put(conversation);
      this.#conversationChanged(conversation);
    });
    on("conversation.deleted", ({ conversation }) => {
      this.sidebar.remove(conversation.id);
      if (conversation.id === this.#id) this.open(null);
    });
    on("conversation.subscribed", (frame) => this.#subscribed(frame));
    on("message.created", (frame) => this.#messageCreated(frame));
    on("reply.started", ({ message }) => this.#isHere(message) && this.#replyStarted(message));
    on("reply.delta", (frame) => frame.conversation_id === this.#id && this.#grow(() => this.view.addDelta(frame)));
    on("reply.block", (frame) => frame.conversation_id === this.#id && this.#grow(() => this.view.addBlock(frame)));
    for (const end of ["completed", "stopped", "failed", "interrupted"]) {
      on(`reply.${end}`, ({ message }) => this.#isHere(message) && this.#replyEnded(message));
    }
    on("message.feedback", (frame) => this.#judged(frame));
    on("message.refused", (entry) => {
      if (entry.frame.conversation_id === this.#id) this.#showUnsent(entry);
      announce(`Not sent. ${entry.error.message}`);
      this.#refresh();
    });
    on("error", ({ message }) => toast(message));
  }

  #judged({ message_id, ...opinions }) {
    const article = this.view.find(message_id);
    if (article) showOpinions(article, opinions);
  }

  #isHere(message) {
    return message.conversation_id === this.#id;
  }

  #grow(change) {
    change();
    this.view.scroller.refresh();
  }

  #connectionChanged(state) {
    if (state === "waiting") this.#isFresh = false;
    if (state === "open") {
      this.#showOutbox();
      this.#dropSettled();
    }
    this.#refresh();
  }

  /** What this tab shows as unsent may have been sent, or discarded, by another one that was connected sooner. */
  async #dropSettled() {
    for (const id of this.view.unsentIds.filter((id) => !this.outbox.find(id))) {
      const place = this.outbox.placeOf(id);
      if (place && place !== this.#id) await this.#sentElsewhere(id, place);
      else if (this.#id) await this.#reloadBranch(); // with the message in its place
      this.view.dropUnsent(id);
    }
    this.#refresh();
  }

  /** A message is in a conversation this page does not show and may not know of: who told of it was not heard here. */
  async #sentElsewhere(requestId, id) {
    if (!this.conversation && this.view.hasUnsent(requestId)) {
      this.composer.rename(id);
      this.store.set("options:new", null);
      await this.open(id, { record: "replaceState" });
    }
    this.view.dropUnsent(requestId);
    this.#refresh();
    if (this.sidebar.item(id)) return;
    const conversation = await callApi("GET", `conversations/${id}`).catch(() => null);
    if (conversation) this.sidebar.put(conversation);
  }

  /** The answer to our own first message turns the empty page into the conversation. */
  #conversationCreated({ conversation, request_id }) {
    this.sidebar.put(conversation);
    const isOurs = request_id && !this.conversation && this.view.hasUnsent(request_id);
    if (!isOurs) return;
    this.conversation = conversation;
    history.replaceState({ id: conversation.id }, "", `/c/${conversation.id}/`);
    this.composer.rename(conversation.id);
    this.store.set("options:new", null);
    this.#showTitle();
    document.getElementById("conversation-menu").hidden = false;
    this.sidebar.markCurrent(conversation.id);
  }

  #conversationChanged(conversation) {
    if (conversation.id !== this.#id) return;
    const modelChanged = conversation.model !== this.conversation.model;
    this.conversation = conversation;
    this.#showTitle();
    this.sidebar.markCurrent(conversation.id);
    if (modelChanged) this.#pick(conversation.model);
    clearTimeout(this.leafTimer);
    this.leafTimer = setTimeout(() => this.#followLeaf(), LEAF_SETTLES_MS);
  }

  /** Frames of a send put its messages on screen themselves; only a leaf that stays unknown asks for the branch. */
  #followLeaf() {
    const leaf = this.conversation?.current_leaf_id;
    if (leaf && leaf !== this.view.leafId) this.#reloadBranch();
  }

  async #reloadBranch() {
    const id = this.#id;
    const html = id && (await fetchFragment(`/c/${id}/messages/`));
    if (!html || id !== this.#id) return;
    this.view.replaceBranch(html, { isUnsent: (request) => Boolean(this.outbox.find(request)) });
    if (this.view.runningIds.length) this.socket.subscribe(id, this.view.runningIds);
    this.#refresh();
  }

  /** After a reconnect: what happened meanwhile may have changed the branch. */
  async #subscribed({ conversation_id, current_leaf_id, running }) {
    if (conversation_id !== this.#id) return;
    for (const message of running) this.#catchUp(message);
    if (this.#isFresh) {
      this.#isFresh = false;
      this.conversation.current_leaf_id = current_leaf_id;
      return this.#followLeaf(); // a message may have come after the page was written
    }
    const conversation = await callApi("GET", `conversations/${conversation_id}`).catch(() => null);
    if (!conversation) return;
    this.#conversationChanged(conversation);
    for (const message of conversation.messages) if (message.role === "assistant") this.#judged({ message_id: message.id, ...message });
  }

  /** A reply that runs again since it was last seen here comes whole: its deltas from the first. */
  #catchUp(message) {
    const article = this.view.find(message.id);
    if (article && !this.view.runningIds.includes(message.id)) this.#replyStarted({ ...message, content: "" }, { quiet: true });
  }

  #messageCreated({ message, request_id }) {
    if (request_id) this.outbox.notePlace(request_id, message.conversation_id);
    if (!this.#isHere(message)) return void (request_id && this.#sentElsewhere(request_id, message.conversation_id));
    if (request_id) this.view.confirm(request_id, message);
    else this.view.add(message);
    this.#refresh();
  }

  #replyStarted(message, { quiet = false } = {}) {
    this.#grow(() => this.view.startReply(message));
    if (!quiet) announce("Reply started.");
    this.#refresh();
  }

  #replyEnded(message) {
    this.#grow(() => this.view.endReply(message));
    const words = { complete: "Reply finished.", stopped: "Reply stopped.", failed: "Reply failed.", interrupted: "Reply interrupted." };
    const article = this.view.find(message.id);
    if (article) announce(`${words[message.status]} ${message.error?.message ?? ""} ${part(article, "body").textContent}`);
    this.#refresh();
  }

  #refresh() {
    const waiting = this.outbox.mine().some((entry) => !entry.error && entry.frame.conversation_id === this.#id && this.view.hasUnsent(entry.id));
    this.composer.setState({ running: Boolean(this.view.running), waiting });
  }
}

function waitText({ retry_after }) {
  return retry_after ? ` Try again in ${Math.ceil(retry_after)} s.` : "";
}

function socketUrl() {
  const { protocol, host } = window.location;
  return `${protocol === "https:" ? "wss" : "ws"}://${host}/ws/chat/`;
}

new ChatPage(JSON.parse(document.getElementById("page-data").textContent));
