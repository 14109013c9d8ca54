/** What every page about trainings does: forms that a double click sends once, and moments in the reader's own zone. */

const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || !("once" in form.dataset)) return;
  if (form.dataset.sent) event.preventDefault();
  form.dataset.sent = "yes";
});

// Back from the next page, the form may be sent again.
window.addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
});

export function writeMoments(root) {
  for (const time of root.querySelectorAll("time[data-moment]")) time.textContent = moment.format(new Date(time.dateTime));
}

writeMoments(document);
document.addEventListener("htmx:load", (event) => writeMoments(event.detail.elt));
