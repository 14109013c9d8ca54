/** The pre-flight report: drawn anew when the check is through. */

import { JobBanner } from "./job_banner.js";
import { JobSocket } from "./job_socket.js";
import { JobState } from "./job_state.js";

const id = document.getElementById("preflight").dataset.job;
const socket = new JobSocket(`/ws/jobs/${id}/`, () => ({ after_event: Number.MAX_SAFE_INTEGER, after_step: 2 ** 31 }));
new JobBanner(socket);
const state = new JobState("preflight", `/jobs/${id}/preflight/`);
socket.addEventListener("job.updated", ({ detail }) => state.update(detail.job));
socket.connect();
