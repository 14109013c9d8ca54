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

const dayAndTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
for (const time of document.querySelectorAll("time[datetime]")) {
  const date = new Date(time.dateTime);
  if (!Number.isNaN(date.valueOf())) time.textContent = dayAndTime.format(date);
}
