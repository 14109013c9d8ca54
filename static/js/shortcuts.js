/** Keyboard shortcuts of the chat page, and the dialog that lists them. */

const TYPING = "input, textarea, select, [contenteditable]";

export function listenForShortcuts({ stop, create, write }) {
  const list = document.getElementById("shortcuts");
  const search = () => {
    const field = document.getElementById("search");
    if (!field.offsetParent || field.closest("[inert]")) window.location.assign("/search/");
    else field.select();
  };
  document.getElementById("shortcuts-open").addEventListener("click", () => list.showModal());
  document.addEventListener("click", (event) => event.target.closest("[data-close]")?.closest("dialog")?.close());
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
    const action = actionOf(event, { stop, create, write, search, help: () => list.showModal() });
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function actionOf(event, { stop, create, write, search, help }) {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (command && event.shiftKey && key === "o") return create;
  if (command && !event.shiftKey && key === "k") return search;
  if (key === "escape" && !command) return event.shiftKey ? write : stop;
  if (command || event.altKey || event.target.matches?.(TYPING)) return null;
  if (key === "/") return search;
  return key === "?" ? help : null;
}
