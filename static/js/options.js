/** The drawer with the system prompt and the sampling options of a conversation. */

const NUMBERS = {
  temperature: { low: 0, high: 2 },
  top_p: { low: 0, high: 1, above: true },
  max_new_tokens: { low: 1, high: 1_000_000, whole: true },
  seed: { low: Number.MIN_SAFE_INTEGER, high: Number.MAX_SAFE_INTEGER, whole: true },
};

export class OptionsDrawer extends EventTarget {
  constructor() {
    super();
    this.dialog = document.getElementById("options");
    this.form = document.getElementById("options-form");
    this.opener = document.getElementById("options-open");
    this.opener.addEventListener("click", () => this.dialog.showModal());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.#close());
    this.form.addEventListener("submit", (event) => this.#validate() || event.preventDefault());
    this.form.addEventListener("input", () => this.#validate() && this.#emit("typed"));
    this.dialog.addEventListener("cancel", (event) => this.#validate() || event.preventDefault());
    this.dialog.addEventListener("close", () => this.#emit("changed"));
    document.getElementById("options-reset").addEventListener("click", () => {
      this.set({});
      this.#emit("typed");
    });
  }

  /** What differs from the model's defaults. */
  get values() {
    const data = new FormData(this.form);
    const values = {};
    for (const name of Object.keys(NUMBERS)) {
      const text = String(data.get(name) ?? "").trim();
      if (text) values[name] = Number(text);
    }
    const stop = String(data.get("stop") ?? "").split("\n").filter(Boolean);
    if (stop.length) values.stop = stop;
    const prompt = String(data.get("system_prompt") ?? "");
    if (prompt.trim()) values.system_prompt = prompt;
    return values;
  }

  set({ stop = [], ...values }) {
    for (const field of this.form.querySelectorAll("input, textarea")) field.value = values[field.name] ?? "";
    this.form.elements.stop.value = stop.join("\n");
    this.#validate();
    this.#mark();
  }

  /** Only a model that converses takes a prompt and options. */
  showFor(task) {
    this.opener.hidden = task !== "chat";
  }

  #close() {
    if (this.#validate()) this.dialog.close();
  }

  #mark() {
    const count = Object.keys(this.values).length;
    this.opener.classList.toggle("icon-button--on", count > 0);
    this.opener.setAttribute("aria-label", count ? `System prompt and options, ${count} set` : "System prompt and options");
  }

  /** Wrong values are named here, before the server refuses them. */
  #validate() {
    for (const [name, rule] of Object.entries(NUMBERS)) this.form.elements[name].setCustomValidity(problemOf(this.form.elements[name], rule));
    const stop = this.form.elements.stop;
    stop.setCustomValidity(stop.value.split("\n").filter(Boolean).length > 4 ? "At most four stop texts." : "");
    return this.form.reportValidity();
  }

  #emit(type) {
    this.#mark();
    this.dispatchEvent(new CustomEvent(type, { detail: { values: this.values } }));
  }
}

function problemOf(field, { low, high, above = false, whole = false }) {
  if (field.validity.badInput) return "This is not a number.";
  if (field.value === "") return "";
  const value = Number(field.value);
  if (whole && !Number.isInteger(value)) return "This must be a whole number.";
  if (value < low || value > high || (above && value === low)) return `This must be ${above ? "above" : "from"} ${low} up to ${high}.`;
  return "";
}
