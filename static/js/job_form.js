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

/** What was typed or chosen while the new fields were on their way stays. */
let typed = [];

function remember() {
  const form = document.getElementById("job-form");
  typed = [...form.elements].filter((field) => field.name && field.type !== "hidden").map(({ type, id, value, checked }) => ({ type, id, value, checked }));
}

/** The field that the new ones do not follow yet, if there is one. */
function restore() {
  let changed = null;
  for (const { type, id, value, checked } of typed) {
    const field = id && document.getElementById(id);
    if (!field) continue;
    if (type === "radio") {
      if (checked && !field.checked && field.name === "method") changed = field;
      field.checked = checked;
    } else if (field.tagName !== "SELECT") field.value = value;
    else if (field.value !== value && [...field.options].some((option) => option.value === value)) {
      field.value = value;
      if (["base", "data_source"].includes(field.name)) changed = field;
    }
  }
  return changed;
}

document.addEventListener("change", (event) => event.target.form && showChosen(event.target.form));
document.addEventListener("htmx:beforeSwap", remember);
let changed = null;

// At once, not when htmx has settled: what somebody types in between would be put back.
document.addEventListener("htmx:afterSwap", () => {
  changed = restore();
});
document.addEventListener("htmx:afterSettle", () => {
  prepare();
  changed?.dispatchEvent(new Event("change", { bubbles: true }));
  changed = null;
});
prepare();
