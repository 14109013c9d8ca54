/** Durations and measured figures in words, as the server's templates write them. */

const UNITS = [[86_400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
const MISSING = "–";

export function duration(seconds) {
  if (seconds === null || seconds === undefined) return MISSING;
  const whole = Math.max(0, Math.round(seconds));
  for (const [size, name, smallerSize, smaller] of UNITS) {
    if (whole < size) continue;
    const rest = Math.floor((whole % size) / smallerSize);
    return rest ? `${Math.floor(whole / size)} ${name} ${rest} ${smaller}` : `${Math.floor(whole / size)} ${name}`;
  }
  return `${whole} s`;
}

/** Four significant digits. */
export function figure(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return MISSING;
  const size = Math.abs(value);
  if (size >= 1000) return count(Math.round(value));
  if (size && size < 0.001) return value.toExponential(2).replace(/\.?0+e/, "e");
  return String(Number(value.toPrecision(4)));
}

/** How far a job is, in the words of `_job_progress.html`. The estimate is of the steps alone. */
export function progressOf(job) {
  const isStepping = job.status === "running" && ["measuring", "training"].includes(job.phase);
  return {
    phase: job.status === "cancelling" ? "Being cancelled" : capitalised(job.phase || job.status_label),
    steps: job.total_steps ? `step ${count(job.step)} of ${count(job.total_steps)}` : "",
    eta: job.eta_seconds && isStepping ? `about ${duration(job.eta_seconds)} left` : "",
  };
}

export function count(value) {
  return value.toLocaleString("en-US");
}

function capitalised(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}
