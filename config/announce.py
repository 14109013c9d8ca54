"""Says on standard output that Dialoop answers: `python -I -S config/announce.py LOCAL_ADDRESS SHOWN_ADDRESS`.

Only the standard library: it runs while everything else starts.
"""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.request

PATIENCE = 60.0
PAUSE = 0.25


def missing_parts(address: str) -> list[str]:
    """The parts of /readyz that do not answer yet; ["web"] when the page itself does not."""
    try:
        with urllib.request.urlopen(f"{address}/readyz", timeout=3):  # noqa: S310 - our own http address
            return []
    except urllib.error.HTTPError as error:
        try:
            return [part for part, state in json.load(error).items() if not state["ok"]]
        except ValueError:
            return ["web"]
    except OSError:
        return ["web"]


def wait_until_ready(address: str, shown: str) -> str:
    """Block until everything answers, or patience ends: the sentence to show."""
    deadline = time.monotonic() + PATIENCE
    while (missing := missing_parts(address)) and time.monotonic() < deadline:
        time.sleep(PAUSE)
    if missing:
        return f"Dialoop: not ready after {PATIENCE:.0f} s: {', '.join(missing)}. The lines above may say why."
    return f"Dialoop is ready at {shown}"


if __name__ == "__main__":
    sys.stdout.write(wait_until_ready(sys.argv[1], sys.argv[2]) + "\n")
