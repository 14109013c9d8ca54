/** A button that copies, and says for a moment that it has. */

import { copyText } from "./browser.js";
import { announce } from "./notices.js";

const SHOWN_MS = 1600;

export async function copyFrom(control, text) {
  const copied = await copyText(text);
  announce(copied ? "Copied." : "Copying was not allowed.");
  if (!copied || control.dataset.copied) return;
  const { icon } = control.dataset;
  const { textContent: words } = control;
  control.dataset.copied = "true";
  if (icon) control.dataset.icon = "check";
  else control.textContent = "Copied";
  setTimeout(() => {
    delete control.dataset.copied;
    if (icon) control.dataset.icon = icon;
    else control.textContent = words;
  }, SHOWN_MS);
}
