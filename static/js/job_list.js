/** The list of jobs: progress in place, and the queue drawn anew when a job came, went or moved. */

import "./job_common.js";
import { JobBanner } from "./job_banner.js";
import { progressOf } from "./job_figures.js";
import { JobSocket } from "./job_socket.js";

const socket = new JobSocket("/ws/jobs/");
new JobBanner(socket);

socket.addEventListener("queue.updated", ({ detail: { queue } }) => {
  const box = document.getElementById("queue");
  if (box.dataset.revision !== queue.revision) refresh(queue.revision);
  else for (const job of queue.jobs) showProgress(job);
});

async function refresh(revision) {
  const box = document.getElementById("queue");
  if (box.dataset.asked === revision) return;
  box.dataset.asked = revision;
  const { search } = window.location;
  await window.htmx.ajax("GET", "/jobs/?part=queue", { target: "#queue", swap: "outerHTML" });
  await window.htmx.ajax("GET", `/jobs/?part=ended${search.replace("?", "&")}`, { target: "#ended", swap: "innerHTML" });
}

function showProgress(job) {
  const box = document.querySelector(`[data-job="${job.id}"] [data-progress]`);
  if (!box) return;
  const bar = box.querySelector("[data-bar]");
  if (job.total_steps) Object.assign(bar, { max: job.total_steps, value: job.step });
  for (const [name, text] of Object.entries(progressOf(job))) box.querySelector(`[data-${name}]`).textContent = text;
}

socket.connect();
