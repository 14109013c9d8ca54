/** Messages the server has not answered yet, kept in localStorage so that a reload or a dead connection loses none. */

import { randomId } from "./browser.js";

const REMEMBERED_MS = 9 * 60 * 1000; // The server remembers a request id for 10 minutes; after that a resend could repeat it.
const OTHER_TAB_MS = 5000;
const PLACES = 20;

export class Outbox {
  constructor(userId, storage = window.localStorage, session = window.sessionStorage) {
    this.key = `dialoop:${userId}:outbox`;
    this.placesKey = `dialoop:${userId}:sent`;
    this.storage = storage;
    this.tab = session.getItem("dialoop:tab") ?? randomId();
    session.setItem("dialoop:tab", this.tab);
  }

  all() {
    return this.#read(this.key);
  }

  /** Entries this tab looks after: its own, and those a closed tab left behind. */
  mine() {
    const now = Date.now();
    return this.all().filter((entry) => entry.tab === this.tab || now - entry.created_at > OTHER_TAB_MS);
  }

  add(frame) {
    const entry = { id: frame.request_id, frame, tab: this.tab, created_at: Date.now(), sent_at: null, error: null };
    this.#write([...this.all(), entry]);
    return entry;
  }

  update(id, changes) {
    this.#write(this.all().map((entry) => (entry.id === id ? { ...entry, ...changes } : entry)));
  }

  remove(id) {
    this.#write(this.all().filter((entry) => entry.id !== id));
  }

  find(id) {
    return this.all().find((entry) => entry.id === id);
  }

  /** What may go out again by itself: never sent, or sent so recently that the server would recognise it. */
  sendable() {
    return this.mine().filter((entry) => !entry.error && !isDoubtful(entry));
  }

  /** Notes which conversation a message went to. Another tab may have written it, and show it as unsent when it comes back. */
  notePlace(id, conversationId) {
    this.#write([...this.#read(this.placesKey), [id, conversationId]].slice(-PLACES), this.placesKey);
  }

  placeOf(id) {
    return this.#read(this.placesKey).find(([known]) => known === id)?.[1] ?? null;
  }

  #read(key) {
    try {
      return JSON.parse(this.storage.getItem(key) ?? "[]");
    } catch {
      return [];
    }
  }

  #write(entries, key = this.key) {
    try {
      this.storage.setItem(key, JSON.stringify(entries));
    } catch {
      // A full or forbidden store costs only the safety net; the message still goes out.
    }
  }
}

export function isDoubtful(entry) {
  return entry.sent_at !== null && Date.now() - entry.sent_at > REMEMBERED_MS;
}
