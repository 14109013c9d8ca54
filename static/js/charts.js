/** Line charts in SVG, drawn by ourselves: colours from the style sheet, figures by pointer and by keyboard, and a table.
 *
 * new LineChart(figure, { title, series: [{ key, name, kind }], format, fromZero })
 *   figure   an empty <figure>; its chart takes the width it has
 *   kind     "line", "dots" (few points, joined), or "faint" (a noisy line behind a smoothed one)
 * chart.set(key, [[x, y], ...])  the points of one series, by rising x; chart.draw() shows them.
 */

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 220;
const MARGIN = { top: 12, right: 12, bottom: 26, left: 52 };
const TABLE_ROWS = 200;

function svg(name, attributes = {}) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  return node;
}

function html(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

/** Round steps that cut a range into about so many parts. */
export function niceTicks(low, high, parts) {
  const raw = (high - low) / parts || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) ticks.push(index * step || 0);
  return ticks;
}

/** At most `limit` of the points: the first, the last, and of what is between every n-th. */
export function thin(points, limit) {
  if (points.length <= limit) return points;
  const stride = Math.ceil(points.length / limit);
  return points.filter((_, index) => index % stride === 0 || index === points.length - 1);
}

/** The exponential mean, corrected at its beginning, so that it starts where the points do. */
export function smooth(points, keep = 0.9) {
  let mean = 0;
  let weight = 0;
  return points.map(([x, y]) => {
    mean = keep * mean + (1 - keep) * y;
    weight = keep * weight + (1 - keep);
    return [x, mean / weight];
  });
}

function nearest(points, x) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - points[low - 1][0] <= points[low][0] - x ? low - 1 : low;
}

export class LineChart {
  #points = new Map();
  #steps = [];
  #cursor = null;
  #frame = 0;
  #width = 0;

  constructor(figure, { title, series, format, fromZero = false }) {
    Object.assign(this, { figure, title, series, format, fromZero });
    this.#build();
    new ResizeObserver(([entry]) => {
      if (Math.abs(entry.contentRect.width - this.#width) < 1) return;
      this.#width = entry.contentRect.width;
      this.draw();
    }).observe(this.plot);
  }

  set(key, points) {
    this.#points.set(key, points);
  }

  /** Once a frame of the screen, however often it is asked for. */
  draw() {
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #build() {
    const head = html("figcaption", "chart__head");
    head.append(html("h3", "chart__title", this.title), this.#legend());
    this.plot = html("div", "chart__plot");
    this.svg = svg("svg", { class: "chart__svg", tabindex: "0", role: "slider", "aria-label": `${this.title} by step`, height: HEIGHT });
    this.readout = html("p", "chart__readout");
    this.readout.setAttribute("aria-hidden", "true");
    this.plot.append(this.svg);
    this.details = html("details", "figures");
    this.details.append(html("summary", "", "As a table"));
    this.details.addEventListener("toggle", () => this.#fillTable());
    this.figure.replaceChildren(head, this.plot, this.readout, this.details);
    this.svg.addEventListener("pointermove", (event) => this.#point(event));
    this.svg.addEventListener("pointerdown", (event) => this.#point(event));
    this.svg.addEventListener("pointerleave", () => this.#move(null));
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    this.svg.addEventListener("blur", () => this.#move(null));
    this.svg.addEventListener("focus", () => this.#cursor === null && this.#move(this.#steps.length - 1));
  }

  #legend() {
    const list = html("ul", "chart__legend");
    for (const { key, name, kind } of this.series) {
      const item = html("li");
      const sample = svg("svg", { width: 22, height: 10, "aria-hidden": "true" });
      sample.append(svg("path", { class: `series series--${key} series--${kind}`, d: "M1 5H21" }));
      if (kind === "dots") sample.append(svg("circle", { class: `dots dots--${key}`, cx: 11, cy: 5, r: 3.5 }));
      item.append(sample, html("span", "", name));
      list.append(item);
    }
    list.hidden = this.series.length < 2;
    return list;
  }

  // --- drawing ---

  #draw() {
    if (!this.#width) return;
    const all = this.series.flatMap(({ key }) => this.#points.get(key) ?? []);
    this.#steps = [...new Set(all.map(([x]) => x))].sort((a, b) => a - b);
    this.svg.setAttribute("viewBox", `0 0 ${this.#width} ${HEIGHT}`);
    this.svg.setAttribute("width", this.#width);
    if (!all.length) return this.svg.replaceChildren();
    this.#scale(all);
    this.svg.replaceChildren(this.#axes(), ...this.series.flatMap((one) => this.#line(one)), this.#pointer());
    this.#move(this.#cursor);
    if (this.details.open) this.#fillTable();
  }

  #scale(all) {
    const ys = all.map(([, y]) => y);
    let low = this.fromZero ? Math.min(0, ...ys) : Math.min(...ys);
    let high = Math.max(...ys);
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    if (!this.fromZero) low -= room;
    high += room;
    const first = this.#steps[0];
    const last = Math.max(this.#steps.at(-1), first + 1);
    const right = this.#width - MARGIN.right;
    const bottom = HEIGHT - MARGIN.bottom;
    this.range = { low, high, first, last };
    this.x = (value) => MARGIN.left + ((value - first) / (last - first)) * (right - MARGIN.left);
    this.y = (value) => bottom - ((value - low) / (high - low)) * (bottom - MARGIN.top);
  }

  #axes() {
    const { low, high, first, last } = this.range;
    const group = svg("g", { class: "chart__axes", "aria-hidden": "true" });
    for (const tick of niceTicks(low, high, 4)) {
      group.append(svg("line", { x1: MARGIN.left, x2: this.#width - MARGIN.right, y1: this.y(tick), y2: this.y(tick) }));
      group.append(this.#label(this.format(tick), MARGIN.left - 8, this.y(tick) + 4, "end"));
    }
    for (const tick of niceTicks(first, last, Math.max(3, Math.floor(this.#width / 90)))) {
      if (Number.isInteger(tick)) group.append(this.#label(tick.toLocaleString("en-US"), this.x(tick), HEIGHT - 6, "middle"));
    }
    return group;
  }

  #label(text, x, y, anchor) {
    const label = svg("text", { x, y, "text-anchor": anchor });
    label.textContent = text;
    return label;
  }

  #line({ key, kind }) {
    const points = thin(this.#points.get(key) ?? [], Math.max(100, Math.floor(this.#width)));
    if (!points.length) return [];
    const path = points.map(([x, y], index) => `${index ? "L" : "M"}${this.x(x).toFixed(1)} ${this.y(y).toFixed(1)}`).join("");
    const nodes = [svg("path", { class: `series series--${key} series--${kind}`, d: path })];
    if (kind === "dots" || points.length === 1) {
      for (const [x, y] of points) nodes.push(svg("circle", { class: `dots dots--${key}`, cx: this.x(x), cy: this.y(y), r: 3.5 }));
    }
    return nodes;
  }

  #pointer() {
    this.pointer = svg("line", { class: "chart__pointer", y1: MARGIN.top, y2: HEIGHT - MARGIN.bottom, visibility: "hidden" });
    return this.pointer;
  }

  // --- figures by pointer, by keyboard, in a table ---

  #point(event) {
    if (!this.#steps.length || !this.range) return;
    const box = this.svg.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (this.#width - MARGIN.left - MARGIN.right);
    const step = this.range.first + share * (this.range.last - this.range.first);
    this.#move(nearest(this.#steps.map((value) => [value]), step));
  }

  #key(event) {
    const last = this.#steps.length - 1;
    const at = this.#cursor ?? last;
    const page = Math.max(1, Math.round(last / 10));
    const moves = { ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1, PageDown: at - page, PageUp: at + page, Home: 0, End: last };
    if (!(event.key in moves) || last < 0) return;
    event.preventDefault();
    this.#move(Math.min(last, Math.max(0, moves[event.key])));
  }

  #move(position) {
    this.#cursor = position === null || !this.#steps.length ? null : Math.min(position, this.#steps.length - 1);
    const shown = this.#cursor ?? this.#steps.length - 1;
    const step = this.#steps[shown];
    this.readout.textContent = step === undefined ? "" : this.#sentence(step);
    this.readout.classList.toggle("chart__readout--pointed", this.#cursor !== null);
    if (step === undefined) return;
    const limits = { "aria-valuemin": this.range.first, "aria-valuemax": this.range.last, "aria-valuenow": step };
    for (const [name, value] of Object.entries(limits)) this.svg.setAttribute(name, value);
    this.svg.setAttribute("aria-valuetext", this.#sentence(step));
    this.pointer.setAttribute("visibility", this.#cursor === null ? "hidden" : "visible");
    for (const end of ["x1", "x2"]) this.pointer.setAttribute(end, this.x(step));
  }

  #sentence(step) {
    const parts = this.series.flatMap(({ key, name, kind }) => {
      const points = this.#points.get(key) ?? [];
      const found = points.length ? points[nearest(points, step)] : null;
      if (!found || (kind !== "dots" && found[0] !== step) || found[0] > step) return [];
      return [`${name.toLowerCase()} ${this.format(found[1])}${found[0] === step ? "" : ` (step ${found[0]})`}`];
    });
    return `Step ${step.toLocaleString("en-US")}: ${parts.join(", ") || "–"}`;
  }

  #fillTable() {
    this.details.querySelector(".chart__table")?.remove();
    if (!this.details.open) return;
    const wrap = html("div", "chart__table");
    wrap.tabIndex = 0;
    const table = html("table", "table small");
    const shown = this.series.filter(({ kind }) => kind !== "faint" || this.series.length === 1);
    const byStep = shown.map(({ key }) => new Map(this.#points.get(key) ?? []));
    const kept = new Set(thin(this.#steps, TABLE_ROWS));
    shown.forEach(({ kind }, index) => kind === "dots" && [...byStep[index].keys()].forEach((step) => kept.add(step)));
    table.append(this.#row("th", ["Step", ...shown.map(({ name }) => name)]));
    for (const step of [...kept].sort((a, b) => a - b)) {
      table.append(this.#row("td", [step.toLocaleString("en-US"), ...byStep.map((values) => this.format(values.get(step) ?? null))]));
    }
    wrap.append(table);
    this.details.append(wrap);
  }

  #row(kind, cells) {
    const row = html("tr");
    for (const cell of cells) {
      const node = html(kind, "number", cell);
      if (kind === "th") node.scope = "col";
      row.append(node);
    }
    return row;
  }
}
