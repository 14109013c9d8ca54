/** What every page needs: menus that close, dates in the reader's own time zone, buttons that copy, and questions before a deletion. */

import { copyText } from "./browser.js";

function closeMenus(except) {
  for (const menu of document.querySelectorAll("details[data-menu][open]")) {
    if (!except || !menu.contains(except)) menu.open = false;
  }
}

document.addEventListener("click", (event) => {
  closeMenus(event.target);
  const copy = event.target.closest("[data-copy-text]");
  if (copy) copyText(copy.dataset.copyText).then((copied) => copied && flash(copy));
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  const open = document.querySelector("details[data-menu][open]");
  if (!open) return;
  open.open = false;
  open.querySelector("summary").focus();
  event.stopImmediatePropagation();
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

function flash(button) {
  const icon = button.dataset.icon;
  button.dataset.icon = "check";
  setTimeout(() => (button.dataset.icon = icon ?? ""), 1500);
}

/** A <time> tells its moment in the reader's zone when pointed at; with data-local it is written so. */
function localise(root) {
  const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  for (const time of root.querySelectorAll("time[datetime]")) {
    const date = new Date(time.dateTime);
    if (Number.isNaN(date.valueOf())) continue;
    time.title = moment.format(date);
    if ("local" in time.dataset) time.textContent = date.toLocaleDateString(undefined, { dateStyle: "medium" });
  }
}

localise(document);
// On a phone the bar scrolls sideways: the place one is at stays in sight.
document.querySelector(".topbar__nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
document.addEventListener("htmx:load", (event) => localise(event.detail.elt));
