/** One message of the page: builds it from the page's <template>, and words what the server leaves to the page. */

const HINTS = {
  provider_auth: "An administrator can correct the key of this connection. Meanwhile pick another model.",
  provider_not_found: "Pick another model, and tell an administrator.",
  provider_rate_limited: "Wait a moment, then try again, or pick another model.",
  provider_timeout: "What arrived before is kept. Try again, or pick another model.",
  provider_unavailable: "Try again shortly, or pick another model.",
  provider_bad_response: "What arrived is kept. Continue from there, or try again.",
  context_length_exceeded: "Shorten your message, or pick a model with a larger window.",
  model_not_ready: "Pick another model until this one is trained or loaded.",
  interrupted: "Continue from there, or try again.",
};
const RUNNING = new Set(["pending", "streaming"]);
const CONTINUABLE = new Set(["interrupted", "stopped", "failed"]);

export function isRunning(article) {
  return RUNNING.has(article.dataset.status);
}

export function part(article, name) {
  return article.querySelector(`[data-part="${name}"]`);
}

export function siblingsOf(article) {
  return article.dataset.siblings ? article.dataset.siblings.split(" ") : [article.dataset.id];
}

/** A new <article> showing this message (as the wire describes it). */
export function buildMessage(message, siblings = [message.id]) {
  const pattern = document.getElementById(`message-${message.role}`);
  const article = pattern.content.querySelector("article").cloneNode(true);
  article.dataset.id = message.id;
  article.dataset.parent = message.parent_id ?? "";
  article.dataset.status = message.status;
  article.dataset.siblings = siblings.join(" ");
  if (message.role === "user") part(article, "body").textContent = message.content;
  else fillReply(article, message);
  decorate(article);
  return article;
}

/** Puts a reply's present state into its article. The body is left alone while the reply runs: it belongs to the stream. */
export function fillReply(article, message) {
  const { usage, timings, error } = message;
  article.dataset.status = message.status;
  article.dataset.finish = message.finish_reason ?? "";
  if (!RUNNING.has(message.status)) {
    article.dataset.source = message.content;
    replaceBody(part(article, "body"), message.html ?? "");
  }
  setData(article, "left-out", { count: message.messages_left_out ?? 0 });
  setData(article, "fallback", { requested: message.requested_model ?? "" });
  setData(article, "failure", { code: error?.code ?? "" });
  setText(article, "failure-what", error?.message ?? "");
  setText(article, "reasoning-title", "Thoughts");
  if (message.reasoning) setText(article, "reasoning-text", message.reasoning);
  setData(article, "meta", {
    model: message.model ?? "",
    version: message.version ?? "",
    promptTokens: usage?.prompt_tokens ?? "",
    completionTokens: usage?.completion_tokens ?? "",
    firstMs: timings?.first_token_ms ?? "",
    totalMs: timings?.total_ms ?? "",
  });
  fillLabels(part(article, "labels"), message.labels ?? []);
  fillOpinions(article, message);
  decorate(article);
}

/** What its owner thinks of a reply, as the wire tells it, with words. */
export function showOpinions(article, opinions) {
  fillOpinions(article, opinions);
  decorateOpinions(article);
}

function fillOpinions(article, { feedback, correction, is_chosen = false }) {
  setData(article, "rating", {
    rating: feedback?.rating ?? "",
    comment: feedback?.comment ?? "",
    tags: feedback?.tags.join(" ") ?? "",
  });
  part(article, "choose")?.setAttribute("aria-pressed", String(is_chosen));
  if (correction && !part(article, "correction")) article.querySelector(".message__bar").before(emptyCorrection());
  setData(article, "correction", { source: correction?.content ?? "" });
  const body = part(article, "correction-body");
  if (body) body.innerHTML = correction?.html ?? "";
}

/** Left out of a page where nothing is corrected. */
function emptyCorrection() {
  return document.getElementById("message-assistant").content.querySelector('[data-part="correction"]').cloneNode(true);
}

export function ratingOf(article) {
  const { rating, comment, tags } = part(article, "rating").dataset;
  return { rating: Number(rating), comment, tags: tags ? tags.split(" ") : [] };
}

export function correctionOf(article) {
  return part(article, "correction")?.dataset.source ?? "";
}

/** What the stream has put into a body so far, as HTML. */
export const streamedHtml = new WeakMap();

/** Keeps the nodes the stream already made when the final HTML only adds to them: a selection in them survives. */
function replaceBody(body, html) {
  for (const unfinished of body.querySelectorAll(".tail, .typing")) unfinished.remove();
  const shown = streamedHtml.get(body);
  if (shown && html.startsWith(shown)) body.insertAdjacentHTML("beforeend", html.slice(shown.length));
  else body.innerHTML = html;
  streamedHtml.delete(body);
}

function fillLabels(list, labels) {
  if (!list) return;
  list.replaceChildren(
    ...labels.map(({ label, score }) => {
      const row = element("li", "label");
      const bar = element("progress", "label__bar");
      bar.max = 1;
      bar.value = score;
      bar.setAttribute("aria-label", label);
      const number = element("span", "label__score");
      number.dataset.score = score;
      row.append(element("span", "label__name", label), bar, number);
      return row;
    }),
  );
}

/** Words, shows and hides the parts of an article, whether the server or `buildMessage` made it. */
export function decorate(article) {
  const { status, finish } = article.dataset;
  const running = RUNNING.has(status);
  decorateSiblings(article);
  if (article.classList.contains("message--user")) return;
  article.setAttribute("aria-busy", String(running));
  decorateNotes(article);
  decorateFailure(article, status);
  decorateOpinions(article);
  for (const score of article.querySelectorAll("[data-score]")) score.textContent = percent(Number(score.dataset.score));
  show(part(article, "labels"), Boolean(part(article, "labels")?.children.length));
  show(part(article, "reasoning"), Boolean(part(article, "reasoning-text")?.textContent));
  const retry = status === "interrupted" || status === "failed";
  show(part(article, "retry"), retry);
  show(part(article, "again"), !retry);
  show(part(article, "continue"), canContinue(article, status, finish));
  part(article, "meta").textContent = running ? "" : metaText(part(article, "meta").dataset, status, finish);
  article.querySelector(".message__bar").hidden = running;
}

function decorateOpinions(article) {
  const { rating } = ratingOf(article);
  article.querySelector('[data-act="good"]').setAttribute("aria-pressed", String(rating === 1));
  article.querySelector('[data-act="bad"]').setAttribute("aria-pressed", String(rating === -1));
  const isCorrected = Boolean(correctionOf(article));
  show(part(article, "correction"), isCorrected);
  show(part(article, "correct"), !isCorrected && !part(article, "labels")?.children.length);
  show(part(article, "choose"), siblingsOf(article).length > 1);
}

function canContinue(article, status, finish) {
  if (part(article, "labels")?.children.length) return false;
  if (status === "failed" && !article.dataset.source) return false;
  return CONTINUABLE.has(status) || finish === "length";
}

function decorateSiblings(article) {
  const siblings = siblingsOf(article);
  const group = part(article, "siblings");
  if (!group) return;
  show(group, siblings.length > 1);
  const position = siblings.indexOf(article.dataset.id);
  part(article, "sibling-count").textContent = `${position + 1}/${siblings.length}`;
  group.querySelector('[data-act="previous"]').disabled = position <= 0;
  group.querySelector('[data-act="next"]').disabled = position >= siblings.length - 1;
}

function decorateNotes(article) {
  const leftOut = part(article, "left-out");
  const count = Number(leftOut?.dataset.count ?? 0);
  if (leftOut) leftOut.textContent = count === 1 ? "1 earlier message did not fit and was not read." : `${count} earlier messages did not fit and were not read.`;
  show(leftOut, count > 0);
  const fallback = part(article, "fallback");
  const requested = fallback?.dataset.requested;
  if (fallback) fallback.textContent = `${modelName(requested)} is down, so ${modelName(part(article, "meta").dataset.model)} answered instead.`;
  show(fallback, Boolean(requested));
}

function decorateFailure(article, status) {
  const failure = part(article, "failure");
  if (!failure) return;
  const { code } = failure.dataset;
  show(failure, Boolean(code) && (status === "failed" || status === "interrupted"));
  part(article, "failure-hint").textContent = HINTS[code] ?? "Try again, or pick another model.";
}

let modelNames = new Map();

export function setModelNames(names) {
  modelNames = names;
}

export function modelName(slug) {
  const [plain, version] = (slug ?? "").split("@");
  return modelNames.has(plain) ? modelNames.get(plain) + (version ? ` @${version}` : "") : (slug ?? "");
}

function metaText(data, status, finish) {
  const pieces = [modelName(data.model) + (data.version ? ` v${data.version}` : "")];
  if (data.completionTokens) pieces.push(tokensText(data));
  if (data.totalMs) pieces.push(seconds(data.totalMs) + (data.firstMs ? ` (first word after ${seconds(data.firstMs)})` : ""));
  if (status === "stopped") pieces.push("stopped");
  else if (finish === "length") pieces.push("cut at the longest reply");
  else if (finish === "content_filter") pieces.push("withheld by the provider");
  return pieces.filter(Boolean).join(" · ");
}

function tokensText({ promptTokens, completionTokens }) {
  const count = (value) => Number(value).toLocaleString();
  return promptTokens ? `${count(promptTokens)} tokens in, ${count(completionTokens)} out` : `${count(completionTokens)} tokens`;
}

function seconds(milliseconds) {
  const value = Number(milliseconds) / 1000;
  const digits = value < 0.1 ? 2 : Number(value < 10);
  return `${value.toLocaleString(undefined, { maximumFractionDigits: digits })} s`;
}

function percent(score) {
  return score.toLocaleString(undefined, { style: "percent", maximumFractionDigits: 1 });
}

export function element(name, className = "", text = "") {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function show(node, visible) {
  if (node) node.hidden = !visible;
}

function setText(article, name, text) {
  const node = part(article, name);
  if (node) node.textContent = text;
}

function setData(article, name, values) {
  const node = part(article, name);
  if (node) Object.assign(node.dataset, values);
}
