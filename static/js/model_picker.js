/** Which model answers: shows what each is, whether it is available, and if not, why. */

import { callApi } from "./api.js";
import { element } from "./message.js";

const TASKS = {
  chat: { title: "Chat models", icon: "chat" },
  classification: { title: "Classifiers", icon: "label", about: "Sorts what you write into its labels, with a score for each. It does not converse." },
  fill_mask: { title: "Masked-word models", icon: "mask", about: "Fills [MASK] in your sentence with the best candidates, or adds a few words." },
};

const EXAMPLES = {
  chat: [
    ["Explain", "Explain how a rainbow forms, in three sentences."],
    ["Write", "Write a short, friendly note that moves our meeting to Thursday."],
    ["Compare", "List three advantages of trains over planes."],
    ["Code", "Write a Python function that checks whether a word is a palindrome."],
  ],
  classification: [
    ["Praise", "The acting was superb and I would watch it again tomorrow."],
    ["Complaint", "Two hours of my life that nobody will give back to me."],
    ["Mixed", "A lovely idea, sadly told far too slowly."],
    ["Plain", "The film starts at eight."],
  ],
  fill_mask: [
    ["Geography", "Paris is the [MASK] of France."],
    ["Weather", "In winter the nights are long and [MASK]."],
    ["Cooking", "Add a pinch of [MASK] to the soup."],
    ["Continue", "The old house at the end of the street"],
  ],
};

export class ModelPicker extends EventTarget {
  constructor(models) {
    super();
    this.models = models;
    this.button = document.getElementById("picker-button");
    this.panel = document.getElementById("picker");
    this.slug = "";
    this.#fill();
    this.button.addEventListener("click", () => (this.panel.hidden ? this.open() : this.close()));
    this.panel.addEventListener("change", (event) => this.#picked(event.target.value));
    this.panel.addEventListener("keydown", (event) => this.#keyPressed(event));
    this.panel.addEventListener("click", (event) => event.target.closest("label") && event.detail > 0 && this.close());
    document.addEventListener("click", (event) => !event.target.closest(".picker") && this.close({ focus: false }));
  }

  /** The model picked; a slug may name one of its versions (`slug@3`). */
  get model() {
    return this.find(this.slug);
  }

  get name() {
    const version = this.slug.split("@")[1];
    return this.model ? this.model.name + (version ? ` @${version}` : "") : this.slug;
  }

  find(slug) {
    const [plain] = slug.split("@");
    return this.models.find((model) => model.slug === plain) ?? null;
  }

  /** The wanted model, or the first one that can answer in its place. */
  firstAvailable(wanted) {
    if (this.find(wanted)?.is_available) return wanted;
    const chats = this.models.filter((model) => model.task === "chat" && model.is_available);
    return chats[0]?.slug ?? wanted;
  }

  get task() {
    return this.model?.task ?? "chat";
  }

  get about() {
    return this.model ? (TASKS[this.task].about ?? "") : "";
  }

  get examples() {
    return EXAMPLES[this.task] ?? EXAMPLES.chat;
  }

  /** Why nothing can be asked at all, or "". */
  get blocked() {
    if (!this.models.length) return "No model is set up yet";
    if (this.model) return "";
    return this.slug ? `${this.slug} is not available to you any more` : "Pick a model";
  }

  /** What stands against the model; it may be asked all the same, for it may be back, or another may answer instead. */
  get problem() {
    return this.blocked || (this.model.is_available ? "" : `${this.name} is not available: ${this.model.reason}`);
  }

  select(slug) {
    this.slug = slug;
    this.#show();
  }

  open() {
    this.#refresh();
    this.panel.hidden = false;
    this.button.setAttribute("aria-expanded", "true");
    (this.panel.querySelector("input:checked") ?? this.panel.querySelector("input"))?.focus();
  }

  close({ focus = true } = {}) {
    if (this.panel.hidden) return;
    this.panel.hidden = true;
    this.button.setAttribute("aria-expanded", "false");
    if (focus) this.button.focus();
  }

  #show() {
    for (const radio of this.panel.querySelectorAll("input")) radio.checked = radio.value === this.model?.slug;
    document.getElementById("picker-name").textContent = this.name || "Pick a model";
    document.getElementById("picker-dot").className = `dot ${this.problem ? "dot--bad" : "dot--good"}`;
    this.button.setAttribute("aria-label", `Model: ${this.name || "none"}${this.problem ? ", not available" : ""}`);
  }

  /** What is up may have changed since the page was loaded. */
  async #refresh() {
    const answer = await callApi("GET", "models").catch(() => null);
    if (!answer || JSON.stringify(answer.items) === JSON.stringify(this.models)) return;
    this.models = answer.items;
    const hadFocus = this.panel.contains(document.activeElement);
    this.#fill();
    this.#show();
    if (hadFocus) this.panel.querySelector("input:checked, input:enabled")?.focus();
    this.dispatchEvent(new CustomEvent("refreshed"));
  }

  #picked(slug) {
    this.select(slug);
    this.dispatchEvent(new CustomEvent("picked", { detail: { slug } }));
  }

  #keyPressed(event) {
    if (event.key !== "Escape" && event.key !== "Enter") return;
    event.preventDefault();
    event.stopPropagation();
    this.close();
  }

  #fill() {
    const groups = Object.entries(TASKS).map(([task, { title, icon }]) => {
      const models = this.models.filter((model) => model.task === task);
      if (!models.length) return null;
      const group = element("fieldset", "picker__group");
      const legend = element("legend");
      const name = element("span", "", title);
      name.dataset.icon = icon;
      legend.append(name);
      group.append(legend, ...models.map((model) => this.#choice(model)));
      return group;
    });
    this.panel.replaceChildren(...groups.filter(Boolean));
    if (!this.models.length) this.panel.append(element("p", "muted small", "No model is set up. An administrator can add one."));
  }

  #choice(model) {
    const label = element("label", "picker__choice");
    const radio = element("input");
    Object.assign(radio, { type: "radio", name: "model", value: model.slug, disabled: !model.is_available });
    const text = element("span", "picker__text");
    const name = element("span", "picker__title", model.name);
    if (model.context_window) name.append(element("span", "badge", windowText(model.context_window)));
    if (!model.is_available) name.append(element("span", "badge badge--bad", "not available"));
    text.append(name);
    const about = model.is_available ? model.description || TASKS[model.task]?.about || "" : model.reason;
    if (about) text.append(element("span", "picker__about", about));
    label.append(radio, text);
    return label;
  }
}

function windowText(tokens) {
  const thousands = Math.round(tokens / (tokens % 1000 ? 1024 : 1000));
  return `reads ${tokens >= 1000 ? `${thousands}k` : tokens} tokens`;
}
