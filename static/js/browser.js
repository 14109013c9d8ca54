/** What browsers offer on https only, or differently: ids, the clipboard, a store that may be forbidden. */

/** A random UUID; `crypto.randomUUID` is missing on a plain http address of the local network. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

/** Copies a text; true when it worked. */
export async function copyText(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return false;
    }
  }
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "sr-only";
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

/** localStorage under this person's name: two people may share a browser. */
export class Store {
  constructor(userId) {
    this.prefix = `dialoop:${userId}:`;
  }

  get(name) {
    try {
      return JSON.parse(window.localStorage.getItem(this.prefix + name));
    } catch {
      return null;
    }
  }

  set(name, value) {
    try {
      if (value === null || value === "") window.localStorage.removeItem(this.prefix + name);
      else window.localStorage.setItem(this.prefix + name, JSON.stringify(value));
    } catch {
      // A full or forbidden store: what was typed is still in the page.
    }
  }
}

export function countCodePoints(text) {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

/** The UTF-16 position after so many code points of a text: the server counts the latter, JavaScript the former. */
export function positionOf(text, codePoints) {
  let position = 0;
  for (let seen = 0; seen < codePoints && position < text.length; seen++) {
    position += text.codePointAt(position) > 0xffff ? 2 : 1;
  }
  return position;
}
