/** The page of one job: live figures, curves, sample answers and log. What the job *is* is drawn by the server. */

import { LineChart, smooth } from "./charts.js";
import { JobBanner } from "./job_banner.js";
import { count, duration, figure, progressOf } from "./job_figures.js";
import { JobSocket } from "./job_socket.js";
import { JobState } from "./job_state.js";

const SMOOTH_FROM = 30;
const LOG_LINES = 1000;
const OF_A_STEP = new Set(["evaluation", "samples", "checkpoint"]);

class JobPage {
  constructor(data) {
    this.job = data.job;
    this.metrics = new Map();
    this.lastEvent = 0;
    this.samples = new Map();
    this.#buildCharts();
    this.state = new JobState("job-state", `/jobs/${this.job.id}/`, (job) => this.#writeFigures(job));
    this.#addMetrics(data.metrics);
    this.#addEvents(data.events);
    this.#writeFigures(this.job);
    this.socket = new JobSocket(`/ws/jobs/${this.job.id}/`, () => this.#seen());
    new JobBanner(this.socket);
    this.socket.addEventListener("job.updated", ({ detail }) => this.#updated(detail.job));
    this.socket.addEventListener("job.metrics", ({ detail }) => this.#addMetrics(detail.metrics));
    this.socket.addEventListener("job.events", ({ detail }) => this.#addEvents(detail.events));
    document.getElementById("sample-step").addEventListener("change", () => this.#showSample());
    this.socket.connect();
  }

  #seen() {
    const steps = [...this.metrics.keys()];
    return { after_event: this.lastEvent, after_step: steps.length ? Math.max(...steps.slice(-1)) : -1 };
  }

  // --- state ---

  #updated(job) {
    if (job.step < this.job.step) this.#goBack(job.step);
    this.job = job;
    this.#writeFigures(job);
    this.state.update(job);
  }

  /** A resumed run does the later steps again: what they said is no longer true. */
  #goBack(step) {
    for (const key of this.metrics.keys()) if (key > step) this.metrics.delete(key);
    for (const line of document.querySelectorAll("#log [data-step]")) if (Number(line.dataset.step) > step) line.remove();
    for (const key of this.samples.keys()) if (key > step) this.samples.delete(key);
    this.#drawCharts();
    this.#listSamples();
  }

  #writeFigures(job) {
    const last = [...this.metrics.values()].findLast((metric) => metric.tokens_per_second !== null);
    write("[data-speed]", last ? `${figure(last.tokens_per_second)} tokens/s` : "–");
    write("[data-tokens]", count(job.trained_tokens));
    write("[data-seconds]", duration(job.training_seconds));
    write("[data-device]", job.device ? [job.device, job.precision].filter(Boolean).join(", ") : "–");
    const { phase, steps, eta } = progressOf(job);
    write("[data-phase]", phase);
    write("[data-steps]", steps);
    write("[data-eta]", eta);
    const bar = document.querySelector("[data-bar]");
    if (bar && job.total_steps) Object.assign(bar, { max: job.total_steps, value: job.step });
  }

  // --- curves ---

  #buildCharts() {
    const chart = (id, options) => new LineChart(document.getElementById(id), { title: document.getElementById(id).dataset.title, format: figure, ...options });
    this.charts = {
      loss: chart("chart-loss", {
        series: [
          { key: "raw", name: "Each step", kind: "faint" },
          { key: "train", name: "Training", kind: "line" },
          { key: "held", name: "Held out", kind: "dots" },
        ],
      }),
      rate: chart("chart-rate", { series: [{ key: "train", name: "Learning rate", kind: "line" }], fromZero: true }),
      gradient: chart("chart-gradient", { series: [{ key: "train", name: "Gradient norm", kind: "line" }], fromZero: true }),
      speed: chart("chart-speed", { series: [{ key: "train", name: "Tokens per second", kind: "line" }], fromZero: true }),
    };
  }

  #addMetrics(metrics) {
    if (!metrics.length) return;
    for (const metric of metrics) this.metrics.set(metric.step, metric);
    if (metrics[0].step < [...this.metrics.keys()].at(-1)) this.metrics = new Map([...this.metrics].sort(([a], [b]) => a - b));
    this.#drawCharts();
    this.#writeFigures(this.job);
  }

  #drawCharts() {
    const all = [...this.metrics.values()];
    const line = (name) => all.filter((metric) => metric[name] !== null).map((metric) => [metric.step, metric[name]]);
    const losses = line("loss");
    const isNoisy = losses.length >= SMOOTH_FROM;
    this.charts.loss.set("raw", isNoisy ? losses : []);
    this.charts.loss.set("train", isNoisy ? smooth(losses) : losses);
    this.charts.loss.set("held", all.filter((metric) => isNumber(heldOut(metric))).map((metric) => [metric.step, heldOut(metric)]));
    this.charts.rate.set("train", line("learning_rate"));
    this.charts.gradient.set("train", line("grad_norm"));
    this.charts.speed.set("train", line("tokens_per_second"));
    document.getElementById("charts").hidden = all.length === 0;
    for (const chart of Object.values(this.charts)) chart.draw();
  }

  // --- log and sample answers ---

  #addEvents(events) {
    const log = document.getElementById("log");
    const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    for (const event of events) {
      if (event.id <= this.lastEvent) continue;
      this.lastEvent = event.id;
      if (event.code === "samples") this.samples.set(event.data.step, event.data.answers);
      if (!event.message) continue;
      document.getElementById("log-none")?.remove();
      log.append(logLine(event));
    }
    while (log.children.length > LOG_LINES) log.firstElementChild.remove();
    if (isAtEnd) log.scrollTop = log.scrollHeight;
    if (events.some((event) => event.code === "samples")) this.#listSamples();
  }

  #listSamples() {
    const select = document.getElementById("sample-step");
    const steps = [...this.samples.keys()].sort((a, b) => a - b);
    const wasLast = select.selectedIndex === select.options.length - 1;
    const chosen = select.value;
    select.replaceChildren(...steps.map((step) => new Option(step ? `step ${count(step)}` : "nothing (the base)", String(step))));
    select.value = wasLast || !this.samples.has(Number(chosen)) ? String(steps.at(-1)) : chosen;
    document.getElementById("samples").hidden = steps.length === 0;
    this.#showSample();
  }

  #showSample() {
    const answers = this.samples.get(Number(document.getElementById("sample-step").value)) ?? [];
    document.getElementById("sample-answers").replaceChildren(...answers.map(answerCard));
  }
}

function heldOut(metric) {
  return metric.evaluation?.eval_loss ?? metric.evaluation?.loss;
}

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

function write(selector, text) {
  const node = document.querySelector(selector);
  if (node && node.textContent !== text) node.textContent = text;
}

function element(name, className, text = "") {
  const node = document.createElement(name);
  node.className = className;
  node.textContent = text;
  return node;
}

function logLine(event) {
  const line = element("li", `job-log__line job-log__line--${event.level}`);
  const time = element("time", "muted");
  time.dateTime = event.created_at;
  time.textContent = new Date(event.created_at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  if (OF_A_STEP.has(event.code)) line.dataset.step = event.data.step;
  const text = element("span", "", event.message);
  const loss = event.code === "evaluation" ? event.data.metrics?.eval_loss : undefined;
  if (isNumber(loss)) text.textContent += ` Held-out loss ${figure(loss)}${event.data.is_best ? ", the best so far" : ""}.`;
  line.append(time, text);
  return line;
}

function answerCard(answer) {
  const card = element("article", "card answers");
  card.append(element("p", "answers__prompt", answer.prompt), element("p", "answers__text", answer.text || "(nothing)"));
  if (answer.has_stopped === false) card.append(element("p", "small muted", "Did not end by itself."));
  return card;
}

new JobPage(JSON.parse(document.getElementById("page-data").textContent));
