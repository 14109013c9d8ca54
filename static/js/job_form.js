/** The forms of jobs and schedules: the reader's time zone, and only the fields of what was chosen. They work without it. */

import "./job_common.js";

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone ?? "";

function prepare() {
  const form = document.getElementById("job-form");
  const { time_zone } = form.elements;
  if (!("keep" in time_zone.dataset)) time_zone.value = ZONE;
  const zone = document.getElementById("zone");
  if (zone && time_zone.value) zone.textContent = ` (${time_zone.value})`;
  showChosen(form);
  const refused = form.querySelector("[aria-invalid=true]") ?? document.getElementById("form-errors");
  refused?.focus();
}

/** `data-for="start=later"`: shown only while that is chosen. */
function showChosen(form) {
  for (const field of form.querySelectorAll("[data-for]")) {
    const [name, values] = field.dataset.for.split("=");
    field.hidden = !values.split(",").includes(form.elements[name].value);
  }
}

document.addEventListener("change", (event) => showChosen(event.target.form));
document.addEventListener("htmx:afterSwap", prepare);
prepare();
