/** What an empty conversation shows: who will answer, and questions to begin with. */

import { element } from "./message.js";

/** `examples`: pairs of a short name and the text that a click writes into the composer. */
export function showWelcome(text, examples) {
  document.getElementById("welcome-text").textContent = text;
  document.getElementById("examples").replaceChildren(...examples.map(([name, question]) => row(name, question)));
}

function row(name, question) {
  const button = element("button", "example");
  button.type = "button";
  button.dataset.text = question;
  button.append(element("strong", "", name), element("span", "", question));
  const item = element("li");
  item.append(button);
  return item;
}
