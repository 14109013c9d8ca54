/** The upload of a file into a dataset: choosing it, its progress, going on after a reload. The protocol is in upload.js. */

import { callApi } from "./api.js";
import { Upload } from "./upload.js";

const STATES = {
  sending: "Uploading …",
  paused: "Paused. What has arrived is kept.",
  waiting: "The server cannot be reached. The upload goes on by itself.",
  done: "Everything has arrived. The file is being looked at …",
};

const by = (id) => document.getElementById(id);

class UploadPage {
  #upload = null;
  #address = "";
  #page = "";
  #speed = new Speed();

  constructor(form) {
    this.form = form;
    this.input = by("file");
    this.#listen();
  }

  #listen() {
    const drop = by("drop");
    this.input.addEventListener("change", () => this.#chosen());
    for (const type of ["dragenter", "dragover"]) {
      drop.addEventListener(type, (event) => {
        event.preventDefault();
        drop.classList.add("drop--over");
      });
    }
    for (const type of ["dragleave", "drop"]) drop.addEventListener(type, () => drop.classList.remove("drop--over"));
    drop.addEventListener("drop", (event) => {
      event.preventDefault();
      if (!event.dataTransfer.files.length) return;
      this.input.files = event.dataTransfer.files;
      this.#chosen();
    });
    // A file dropped beside the field must not replace the page.
    for (const type of ["dragover", "drop"]) document.addEventListener(type, (event) => event.preventDefault());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#begin();
    });
    by("upload-pause").addEventListener("click", () => (this.#upload.state === "paused" ? this.#upload.start() : this.#upload.pause()));
    by("upload-retry").addEventListener("click", () => this.#upload.start());
    by("upload-cancel").addEventListener("click", () => this.#cancel());
    window.addEventListener("beforeunload", (event) => {
      if (["sending", "waiting"].includes(this.#upload?.state)) event.preventDefault();
    });
  }

  get #file() {
    return this.input.files[0] ?? null;
  }

  #chosen() {
    const file = this.#file;
    const name = by("file-name");
    name.hidden = !file;
    name.textContent = file ? `${file.name}, ${bytesText(file.size)}` : "";
    this.#complain("file", this.#faultOf(file));
    const field = by("name");
    if (file && field && !field.value) field.value = file.name.replace(/\.[^.]+$/, "").replaceAll("_", " ");
  }

  /** Why this file cannot be taken, or "". */
  #faultOf(file) {
    if (!file) return "Choose a file first.";
    if (!file.size) return "The file is empty.";
    const { maxBytes, fileName, size } = this.form.dataset;
    if (maxBytes && file.size > Number(maxBytes)) return `The file is larger than ${bytesText(Number(maxBytes))}. Split it.`;
    if (fileName && (file.name !== fileName || file.size !== Number(size))) {
      return `This is another file. The upload began with ${fileName}, ${bytesText(Number(size))}.`;
    }
    return "";
  }

  async #begin() {
    const fault = this.#faultOf(this.#file);
    const name = by("name");
    const nameFault = name && !name.value.trim() ? "Give the dataset a name." : "";
    this.#complain("file", fault);
    this.#complain("name", nameFault);
    if (fault || nameFault) return (fault ? this.input : name).focus();
    const button = this.form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      this.#show(await this.#open());
    } catch (error) {
      this.#complain(name && "name" in error.fields ? "name" : "file", error.message);
    } finally {
      button.disabled = false;
    }
  }

  /** The import to send to: a new one, or the one whose page this is. */
  async #open() {
    const { dataset, import: id } = this.form.dataset;
    if (id) return { dataset, ...(await callApi("GET", `datasets/${dataset}/imports/${id}`)) };
    const file = this.#file;
    const body = { file_name: file.name, size: file.size, is_approved: !by("needs-review").checked };
    if (dataset) return { dataset, ...(await callApi("POST", `datasets/${dataset}/imports`, body)) };
    const made = await callApi("POST", "datasets", { name: by("name").value.trim(), description: by("description").value, ...body });
    return { dataset: made.id, ...made.import };
  }

  #show({ dataset, id, part_size: partSize, received }) {
    this.#address = `datasets/${dataset}/imports/${id}`;
    this.#page = `/datasets/${dataset}/imports/${id}/`;
    history.replaceState(null, "", this.#page); // a reload goes on there
    const file = this.#file;
    this.#upload = new Upload(file, { address: this.#address, partSize, received });
    this.#upload.addEventListener("progress", () => this.#draw());
    this.#upload.addEventListener("state", ({ detail }) => this.#moved(detail));
    by("upload-choice").hidden = true;
    by("upload-progress").hidden = false;
    by("upload-what").textContent = file.name;
    this.#draw();
    this.#upload.start();
    by("upload-pause").focus();
  }

  #draw() {
    const { sent } = this.#upload;
    const { size } = this.#file;
    by("upload-bar").value = sent / size;
    by("upload-figures").textContent = `${bytesText(sent)} of ${bytesText(size)}${this.#speed.text(sent, size)}`;
  }

  #moved({ state, error }) {
    by("upload-state").textContent = STATES[state] ?? "The upload has stopped. What has arrived is kept.";
    by("upload-pause").hidden = state === "failed" || state === "done";
    by("upload-pause").textContent = state === "paused" ? "Go on" : "Pause";
    by("upload-retry").hidden = state !== "failed";
    by("upload-cancel").hidden = state === "done";
    this.#speed.reset();
    const box = by("upload-error");
    box.hidden = state !== "failed";
    box.textContent = state === "failed" ? sentenceOf(error) : "";
    if (state === "done") window.location.assign(this.#page);
  }

  async #cancel() {
    if (!window.confirm("Cancel the upload? What has arrived is thrown away.")) return;
    this.#upload.pause();
    by("upload-cancel").disabled = true;
    try {
      await callApi("POST", `${this.#address}/cancel`);
      window.location.assign(this.#page);
    } catch (error) {
      this.#moved({ state: "failed", error });
      by("upload-cancel").disabled = false;
    }
  }

  #complain(field, sentence) {
    const box = by(`${field}-error`);
    if (!box) return;
    box.textContent = sentence;
    box.hidden = !sentence;
    by(field).setAttribute("aria-invalid", String(Boolean(sentence)));
  }
}

/** Bytes a second over the last while, and what is left at that pace. */
class Speed {
  #marks = [];

  reset() {
    this.#marks = [];
  }

  text(sent, size) {
    const now = performance.now();
    this.#marks.push([now, sent]);
    if (this.#marks.length > 40) this.#marks.shift();
    const [[since, before]] = this.#marks;
    const rate = ((sent - before) / (now - since)) * 1000;
    if (!(rate > 0) || now - since < 1500) return "";
    const seconds = Math.ceil((size - sent) / rate);
    return `, ${bytesText(rate)}/s, ${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} left`;
  }
}

function bytesText(bytes) {
  for (const [unit, size] of [["GB", 2 ** 30], ["MB", 2 ** 20], ["kB", 2 ** 10]]) {
    if (bytes >= size) return `${(bytes / size).toLocaleString(undefined, { maximumFractionDigits: 1 })} ${unit}`;
  }
  return `${Math.round(bytes)} bytes`;
}

function sentenceOf(error) {
  if (error instanceof DOMException) return "The file can no longer be read here. Reload this page and choose it again.";
  return error.message;
}

new UploadPage(by("upload"));
