/** The protocol of /ws/chat/ and nothing else: resumes, resends, drops what it has seen. Knows no DOM element.
 *
 * Events: every frame of the server under its own `type` (detail: the frame), and
 *   state            "connecting" | "open" | "waiting" | "ended"; detail.retryAt tells when the next attempt is
 *   message.refused  an outbox entry was answered by an error (detail: entry with `error`)
 *   error            an error frame that answers something else
 */

import { randomId } from "./browser.js";
import { LastingSocket } from "./lasting_socket.js";

const FINAL = new Map([[4401, "ended"]]);
const ENDS = new Set(["reply.completed", "reply.stopped", "reply.failed", "reply.interrupted"]);

export class ChatSocket extends LastingSocket {
  #subscriptions = new Set();
  #progress = new Map(); // message id -> {conversationId, last}: the last delta seen of each reply that runs

  constructor(url, outbox) {
    super(url, FINAL);
    this.outbox = outbox;
  }

  /** Sends a frame now, or returns null: only `createMessage` waits for a connection. */
  send(frame) {
    if (!this.isOpen) return null;
    const request_id = frame.request_id ?? randomId();
    super.send({ ...frame, request_id });
    return request_id;
  }

  createMessage(fields) {
    const entry = this.outbox.add({ type: "message.create", request_id: randomId(), ...fields });
    this.#deliver(entry);
    return entry;
  }

  /** Sends a message again that was refused or that nobody confirmed, under a new request id. */
  retryMessage(id) {
    const entry = this.outbox.find(id);
    if (!entry) return null;
    this.outbox.remove(id);
    const { type, request_id, ...fields } = entry.frame;
    return this.createMessage(fields);
  }

  /** Watches a conversation, now and after every reconnect. `running` names the replies whose deltas are wanted from the first. */
  subscribe(conversationId, running = []) {
    this.#subscriptions.add(conversationId);
    for (const id of running) this.#progress.set(id, { conversationId, last: 0 });
    this.#sendSubscription(conversationId);
  }

  unsubscribe(conversationId) {
    this.#subscriptions.delete(conversationId);
    for (const [id, progress] of this.#progress) if (progress.conversationId === conversationId) this.#progress.delete(id);
    this.send({ type: "conversation.unsubscribe", conversation_id: conversationId });
  }

  opened() {
    for (const id of this.#subscriptions) this.#sendSubscription(id);
    for (const entry of this.outbox.sendable()) this.#deliver(entry);
  }

  #deliver(entry) {
    if (!this.send(entry.frame)) return;
    this.outbox.update(entry.id, { sent_at: entry.sent_at ?? Date.now() });
  }

  #sendSubscription(conversationId) {
    const after = {};
    for (const [id, progress] of this.#progress) if (progress.conversationId === conversationId) after[id] = progress.last;
    this.send({ type: "conversation.subscribe", conversation_id: conversationId, after });
  }

  received(frame) {
    if (frame.type === "error") return this.#refused(frame);
    if (frame.type === "reply.delta" && !this.#advance(frame)) return;
    if (frame.type === "reply.started") this.#begin(frame.message);
    if (frame.type === "message.created" && frame.request_id) this.#confirm(frame);
    if (ENDS.has(frame.type)) this.#progress.delete(frame.message.id);
    this.emit(frame.type, frame);
  }

  #begin(message) {
    const seen = this.#progress.get(message.id)?.last ?? 0;
    const last = Math.max(seen, message.last_sequence_number ?? 0);
    this.#progress.set(message.id, { conversationId: message.conversation_id, last });
    this.#subscriptions.add(message.conversation_id);
  }

  /** True when a delta is new. After a gap the missing ones are asked for again instead of showing a hole. */
  #advance(frame) {
    const progress = this.#progress.get(frame.message_id) ?? { conversationId: frame.conversation_id, last: 0 };
    if (frame.sequence_number <= progress.last) return false;
    if (frame.sequence_number > progress.last + 1) {
      this.#progress.set(frame.message_id, progress);
      if (!progress.asked) this.#sendSubscription(frame.conversation_id);
      progress.asked = true;
      return false;
    }
    this.#progress.set(frame.message_id, { conversationId: frame.conversation_id, last: frame.sequence_number });
    return true;
  }

  #confirm(frame) {
    if (this.outbox.find(frame.request_id)) this.outbox.remove(frame.request_id);
    this.#subscriptions.add(frame.message.conversation_id);
  }

  #refused(frame) {
    const { code, message, retry_after } = frame;
    const entry = frame.request_id && this.outbox.find(frame.request_id);
    if (!entry) return this.emit("error", frame);
    const error = { code, message, retry_after };
    this.outbox.update(entry.id, { error });
    this.emit("message.refused", { ...entry, error });
  }
}
