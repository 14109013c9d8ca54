"""How quick the page is and how small the web process: 300 messages in Chromium, memory, second start.

    python -m benchmarks.page

Starts the whole product on a data folder of its own. "Interactive" is the first frame in which a letter typed into the
composer enables the Send button, counted from the navigation's start; each load is a new browser profile.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from tests.support.chromium import ARGUMENTS, CHROMIUM
from tests.support.product import BASE_DIR, Product
from tests.support.waiting import wait_until

MESSAGES = 300
LOADS = 7
NAME, PASSWORD = "reader", "a password of the benchmark"
HEAVY = ("torch", "transformers", "datasets", "pyarrow", "pandas")

_FILL = """
import sys, uuid
import django; django.setup()
from django.utils import timezone
from accounts.models import User
from chat.markdown import render
from chat.models import Conversation, Message
owner = User.objects.create_superuser(sys.argv[1], "reader@example.org", sys.argv[2])
text = "Some **words** about [a thing](https://example.org), `code` and $x^2$.\\n\\n- one\\n- two\\n\\n```python\\n"
text += "def add(a, b):\\n    return a + b\\n```\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |\\n"
conversation = Conversation.objects.create(owner=owner, title="Three hundred", model="smollm2-135m-instruct")
messages, parent = [], None
for depth in range(int(sys.argv[3])):
    role = "assistant" if depth % 2 else "user"
    content = f"{depth}. " + (text if depth % 2 else "What about this one?")
    html = render(content) if depth % 2 else ""
    parent = Message(conversation=conversation, parent=parent, depth=depth, role=role, content=content, html=html)
    messages.append(parent)
Message.objects.bulk_create(messages)
conversation.current_leaf = parent
conversation.save()
print(conversation.id)
"""
_WATCH = """
(() => {
  const look = () => {
    const field = document.getElementById("prompt"), send = document.getElementById("send");
    if (field && send) {
      field.value = "x";
      field.dispatchEvent(new Event("input", { bubbles: true }));
      if (!send.disabled) { window.interactiveAt = performance.now(); return; }
    }
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})();
"""


def fill(product: Product) -> str:
    """Write the conversation; returns its id."""
    command = [sys.executable, "-c", _FILL, NAME, PASSWORD, str(MESSAGES)]
    environment = product.environment | {"DJANGO_SETTINGS_MODULE": "config.settings"}
    done = subprocess.run(command, cwd=BASE_DIR, env=environment, check=True, capture_output=True, text=True)
    return done.stdout.split()[-1]


def load(browser: Browser, product: Product, path: str) -> tuple[float, int]:
    """(milliseconds until interactive, DOM nodes) of one load by somebody who is signed in."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{product.address}/accounts/login/")
    page.fill("[name=login]", NAME)
    page.fill("[name=password]", PASSWORD)
    page.press("[name=password]", "Enter")
    page.wait_for_url(f"{product.address}/")
    page.add_init_script(_WATCH)
    page.goto(f"{product.address}{path}")
    page.wait_for_function("window.interactiveAt")
    result = page.evaluate("[window.interactiveAt, document.querySelectorAll('*').length]")
    context.close()
    return result[0], result[1]


def memory_mb(pid: int) -> float:
    """Resident memory of one process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def heavy_packages(pid: int) -> list[str]:
    maps = Path(f"/proc/{pid}/maps").read_text()
    return [name for name in HEAVY if f"/{name}/" in maps]


def seconds_until(condition) -> float:
    started = time.monotonic()
    wait_until(condition, patience=120, what="start")
    return time.monotonic() - started


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310 - our own address
            return response.status == 200
    except OSError:
        return False


def measure_start(product: Product) -> None:
    product.set_up()
    started = time.monotonic()
    product.start()
    page = seconds_until(lambda: answers(f"{product.address}/accounts/login/"))
    wait_until(product.is_ready, patience=120, what="ready")
    print(f"start after set-up: page {page:.1f} s, ready {time.monotonic() - started:.1f} s")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory(prefix="dialoop-page-", ignore_cleanup_errors=True) as folder:
        product = Product(
            Path(folder), OPENAI_API_KEY="", OPENAI_BASE_URL="", HUGGINGFACE_MODELS="", LOG_LEVEL="WARNING"
        )
        product.set_up()
        conversation_id = fill(product)
        try:
            measure_start(product)
            pid = product.pids()["web"]
            print(f"web, idle after its start: {memory_mb(pid):.0f} MB, heavy packages {heavy_packages(pid) or 'none'}")
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
                loads = [load(browser, product, f"/c/{conversation_id}/") for _ in range(LOADS)]
                browser.close()
            times = [milliseconds for milliseconds, _ in loads]
            spread = f"median of {LOADS}, {min(times):.0f} to {max(times):.0f}"
            nodes = max(count for _, count in loads)
            print(f"{MESSAGES} messages: interactive after {statistics.median(times):.0f} ms ({spread}), {nodes} nodes")
            print(f"web, idle after {LOADS} visits: {memory_mb(pid):.0f} MB")
        finally:
            product.stop()


if __name__ == "__main__":
    main()
