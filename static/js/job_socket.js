/** The protocol of /ws/jobs/ and /ws/jobs/<id>/: subscribes from where it was. Knows no DOM element.
 *
 * Events: every frame of the server under its own `type` (detail: the frame), and
 *   state   "connecting" | "open" | "waiting" | "ended" | "refused" | "gone"
 */

import { LastingSocket } from "./lasting_socket.js";

const FINAL = new Map([[4401, "ended"], [4403, "refused"], [4404, "gone"]]);

export class JobSocket extends LastingSocket {
  /** `seen` says from where to go on: {after_event, after_step}; asked at every connection. */
  constructor(path, seen = () => ({})) {
    const scheme = window.location.protocol === "https:" ? "wss" : "ws";
    super(`${scheme}://${window.location.host}${path}`, FINAL);
    this.seen = seen;
  }

  opened() {
    this.send({ type: "job.subscribe", ...this.seen() });
  }

  received(frame) {
    this.emit(frame.type, frame);
  }
}
