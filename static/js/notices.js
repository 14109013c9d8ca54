/** Toasts for the eye, and one quiet live region for the ear. */

import { element } from "./message.js";

const SHOWN_MS = 8000;
const SPOKEN_CHARS = 1200;

/** Shows a sentence, with at most one action; stays while the pointer or the focus is on it. */
export function toast(text, { action = null, onAction = null } = {}) {
  const box = element("div", "toast");
  box.append(element("span", "", text));
  let timer = 0;
  const hide = () => box.remove();
  const wait = () => (timer = setTimeout(hide, SHOWN_MS));
  if (action) {
    const button = element("button", "toast__action", action);
    button.type = "button";
    button.addEventListener("click", () => {
      hide();
      onAction();
    });
    box.append(button);
  }
  for (const type of ["pointerenter", "focusin"]) box.addEventListener(type, () => clearTimeout(timer));
  for (const type of ["pointerleave", "focusout"]) box.addEventListener(type, wait);
  document.getElementById("toasts").append(box);
  announce(action ? `${text} ${action} is offered.` : text);
  wait();
}

/** Says something once, politely. Long texts are cut: they can be read in the page. */
export function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  const spoken = text.length > SPOKEN_CHARS ? `${text.slice(0, SPOKEN_CHARS)} …` : text;
  requestAnimationFrame(() => (region.textContent = spoken));
}
