"""The chart test: send a record, wait until it completes, read the dashboard. Exits with 1 and a reason on failure."""

import json
import os
import time
import urllib.error
import urllib.request

API, BACKEND, PAGE = os.environ["API"], os.environ.get("BACKEND"), os.environ.get("PAGE")
MESSAGE, SECONDS = os.environ["MESSAGE"].encode(), float(os.environ["SECONDS"])
_FIRST = os.environ.get("TOKENS", "").split(",")[0].strip()
TOKEN = _FIRST.partition(":")[2] if ":" in _FIRST else _FIRST


def call(url: str, body: bytes | None = None) -> bytes:
    headers = {"Content-Type": "text/plain"} | ({"Authorization": f"Bearer {TOKEN}"} if TOKEN else {})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise SystemExit(f"{url} returned {error.code}: {error.read().decode(errors='replace')[:500]}") from None
    except OSError as error:
        raise SystemExit(f"{url} is unavailable: {error}") from None


def print_line(text: str) -> None:
    print(text, flush=True)


accepted = json.loads(call(f"{API}/api/ingest/message", MESSAGE))
print_line(f"accepted: {accepted['message_id']}")
deadline, now = time.monotonic() + SECONDS, ""
while now != "completed":
    if time.monotonic() > deadline:
        raise SystemExit(f"not completed within {SECONDS:g} s; last status: {now}")
    time.sleep(1)
    before, now = now, json.loads(call(f"{API}/api/ingest/status/{accepted['message_id']}"))["status"]
    if now != before:
        print_line(f"status: {now}")
    if now == "dlq":
        raise SystemExit("the record became a dead letter: check that tests.message matches the schema")
if PAGE:
    page = call(f"{PAGE}/")
    if b"/assets/" not in page:
        raise SystemExit(f"{PAGE} does not serve the dashboard: {page[:200]!r}")
    print_line("dashboard: served")
if BACKEND:
    print_line(f"dashboard backend: {call(f'{BACKEND}/ready').decode()}")
