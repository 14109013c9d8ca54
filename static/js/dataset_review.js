/** The review queue: one key for each decision, focus that follows, and nothing written that gets lost. */

const TYPING = "input, textarea, select, [contenteditable]";
const review = document.getElementById("review");
const shortcuts = document.getElementById("shortcuts");
const failure = document.getElementById("review-error");

document.addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  const editor = event.target.closest?.("[data-editor]");
  if (editor && command && event.key === "Enter") return act(event, editor.querySelector("button[value=approve]"));
  if (editor && event.key === "Escape") return act(event, editor.querySelector("[data-leave]"));
  if (command || event.altKey || event.target.matches?.(TYPING)) return;
  if (event.key === "?") return act(event, review.querySelector("[data-open-shortcuts]"));
  if (event.key === "/") {
    event.preventDefault();
    return document.getElementById("q").select();
  }
  act(event, review.querySelector(`[data-key="${CSS.escape(event.key.toLowerCase())}"]`));
});

/** A held key must not decide about rows nobody has seen. */
function act(event, control) {
  if (!control) return;
  event.preventDefault();
  if (!event.repeat && !control.disabled && !review.hasAttribute("aria-busy")) control.click();
}

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-open-shortcuts]")) shortcuts.showModal();
  if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
  const leave = event.target.closest("[data-leave]");
  if (leave && isChanged(leave.closest("[data-editor]")) && !window.confirm("Leave without saving what you changed?")) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
  if (event.target.closest("[data-add-turn]")) addTurn(event.target.closest("[data-section]"));
  const remove = event.target.closest("[data-remove-turn]");
  if (remove) removeTurn(remove.closest("[data-turn]"));
}, true);

let added = 0;

function addTurn(section) {
  const pattern = section.querySelector("template").innerHTML.replaceAll("-new", `-added-${++added}`);
  const last = [...section.querySelectorAll("[data-turn]")].pop();
  const roles = section.querySelectorAll('select[name$="-role"]');
  const before = roles.length ? roles[roles.length - 1].value : "";
  if (last) last.insertAdjacentHTML("afterend", pattern);
  else section.insertAdjacentHTML("afterbegin", pattern);
  const turn = last ? last.nextElementSibling : section.querySelector("[data-turn]");
  turn.querySelector("select").value = before === "user" ? "assistant" : "user";
  turn.querySelector("textarea").focus();
  grow(turn);
}

function removeTurn(turn) {
  const near = turn.nextElementSibling?.matches("[data-turn]") ? turn.nextElementSibling : turn.previousElementSibling;
  const section = turn.closest("[data-section]");
  turn.remove();
  (near?.querySelector("textarea") ?? section.querySelector("[data-add-turn]")).focus();
}

function isChanged(editor) {
  return editor && new URLSearchParams(new FormData(editor)).toString() !== editor.dataset.before;
}

/** A field as tall as what stands in it, where the browser cannot do that by itself. */
function grow(root) {
  if (CSS.supports("field-sizing", "content")) return;
  for (const area of root.querySelectorAll("textarea")) area.rows = Math.min(20, Math.max(3, area.value.split("\n").length + 1));
}

// --- fragments ---

document.addEventListener("htmx:beforeRequest", (event) => {
  if (!review.contains(event.detail.elt)) return;
  review.setAttribute("aria-busy", "true");
});

document.addEventListener("htmx:afterRequest", (event) => {
  review.removeAttribute("aria-busy");
  if (event.detail.successful) failure.hidden = true;
});

// A refusal is a fragment too: it stands beside what was written.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status !== 422) return;
  event.detail.shouldSwap = true;
  event.detail.isError = false;
});

function complain(sentence) {
  failure.textContent = sentence;
  failure.hidden = false;
}

document.addEventListener("htmx:sendError", () => complain("The server could not be reached. Nothing was changed, and what you wrote is still here; try again."));
document.addEventListener("htmx:responseError", (event) => complain(`The server answered ${event.detail.xhr.status}. What you wrote is still here; try again, or reload the page.`));

document.addEventListener("htmx:afterSettle", (event) => {
  if (!review.contains(event.detail.elt) && event.detail.elt !== review) return;
  const editor = review.querySelector("[data-editor]");
  if (editor) {
    grow(editor);
    if (!editor.dataset.before) editor.dataset.before = new URLSearchParams(new FormData(editor)).toString();
  }
  // Somebody who types into the filters stays there.
  if (document.activeElement?.closest("#filters")) return;
  const target = editor?.querySelector('[role="alert"]') ?? editor?.querySelector("textarea") ?? review.querySelector("[data-focus]");
  target?.focus({ preventScroll: false });
  if (!editor) announce(review.querySelector(".done")?.textContent ?? "");
});

function announce(text) {
  const region = document.getElementById("announcer");
  region.textContent = "";
  if (text) requestAnimationFrame(() => (region.textContent = text));
}

window.addEventListener("beforeunload", (event) => {
  if (isChanged(review.querySelector("[data-editor]"))) event.preventDefault();
});

grow(review);
