"""The chart's test: what a client and a viewer of this release would do. It ends with code 1 and the reason where it fails."""

import json
import os
import time
import urllib.error
import urllib.request

API, BACKEND, PAGE = os.environ["API"], os.environ.get("BACKEND"), os.environ.get("PAGE")
MESSAGE, SECONDS = os.environ["MESSAGE"].encode(), float(os.environ["SECONDS"])


def call(url, body=None, token=None):
    headers = {"Content-Type": "text/plain"}
    if token:
        headers["Authorization"] = "Bearer " + token.strip().rpartition(":")[2]
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=10) as answer:
        return answer.status, answer.read()


token = os.environ.get("TOKENS", "").split(",")[0]
status, answer = call(API + "/api/ingest/message", MESSAGE, token)
accepted = json.loads(answer)
print("accepted:", accepted, flush=True)
assert status == 202, status
deadline, now = time.monotonic() + SECONDS, None
while now != "completed":
    assert time.monotonic() < deadline, f"not completed in {SECONDS:g} s: {now}"
    time.sleep(1)
    try:
        before, now = now, json.loads(call(API + "/api/ingest/status/" + accepted["message_id"], None, token)[1])["status"]
    except urllib.error.URLError as error:
        print("status:", error, flush=True)
        continue
    if now != before:
        print("status:", now, flush=True)
    assert now not in ("failed", "dlq"), now
if PAGE:
    page = call(PAGE + "/")[1]
    assert b"<title>" in page and b"/assets/" in page, page[:200]
    print("the page is served", flush=True)
if BACKEND:
    print("the dashboard is ready:", call(BACKEND + "/ready")[1].decode(), flush=True)
