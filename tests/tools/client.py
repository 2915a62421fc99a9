# SPDX-License-Identifier: MIT
"""A small client of any OpenAI-compatible server: JSON posts, event streams with the time of every event, metrics. Standard library only."""
import http.client
import json
import re
import time
import urllib.parse


def exact_float(text):
    """A JSON number kept as its text, so that equal means equal to the last digit."""
    return text


def connect(base_url, timeout=600):
    at = urllib.parse.urlsplit(base_url)
    return http.client.HTTPConnection(at.hostname, at.port or 80, timeout=timeout)


def post(base_url, path, body, timeout=600, parse_float=float):
    """The answer of a POST; any status but 200 is an error with the server's words."""
    link = connect(base_url, timeout)
    try:
        link.request("POST", path, body if isinstance(body, bytes) else json.dumps(body), {"Content-Type": "application/json"})
        reply = link.getresponse()
        data = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{path}: {reply.status} {data[:300]!r}")
        return json.loads(data, parse_float=parse_float)
    finally:
        link.close()


class Stream:
    """One streamed answer. Receiving only takes the time of each line; `events()` parses afterwards, so that reading costs the server's
    processor as little as possible."""

    def __init__(self, base_url, path, body, timeout=600):
        self.lines, self.began = [], time.perf_counter()
        self.link = connect(base_url, timeout)
        self.link.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})

    def read(self):
        """Reads to the end."""
        reply = self.link.getresponse()
        if reply.status != 200:
            raise RuntimeError(f"{reply.status} {reply.read()[:300]!r}")
        while line := reply.readline():
            if line.startswith(b"data: "):
                self.lines.append((time.perf_counter(), line[6:].strip()))
        self.link.close()
        return self

    @property
    def done(self):
        return bool(self.lines) and self.lines[-1][1] == b"[DONE]"

    def events(self, parse_float=float):
        return [(at, json.loads(line, parse_float=parse_float)) for at, line in self.lines if line != b"[DONE]"]


def whole_choices(events):
    """The choices of a stream as an answer that was not streamed would hold them: everything that came in pieces put together."""
    found = {}
    for _, event in events:
        for piece in event["choices"]:
            whole = found.setdefault(piece["index"], {"index": piece["index"]})
            for key, value in piece.items():
                if key == "delta":
                    message = whole.setdefault("message", {"role": "assistant", "content": "", "refusal": None})
                    message["content"] += value.get("content") or ""
                elif key == "logprobs" and value:
                    lists = whole["logprobs"] = whole.get("logprobs") or {k: [] if isinstance(v, list) else v for k, v in value.items()}
                    for name, items in value.items():
                        if isinstance(items, list):
                            lists[name] = lists[name] + items
                elif key in ("text", "token_ids") and value is not None:
                    whole[key] = whole[key] + value if key in whole else value
                elif value is not None or key not in whole:
                    whole[key] = value
    return [found[index] for index in sorted(found)]


def metrics(base_url):
    """Every sample of /metrics: name with labels -> value."""
    link = connect(base_url, 60)
    try:
        link.request("GET", "/metrics")
        text = link.getresponse().read().decode()
    finally:
        link.close()
    return {m[1]: float(m[2]) for m in re.finditer(r"^([a-zA-Z_:][^ ]*) (\S+)$", text, re.M)}


def quantile_bound(before, after, name, share):
    """The bound of the histogram bucket in which the `share` quantile of the observations between two metrics() lies, and their number."""
    label = re.compile(re.escape(name) + r'_bucket\{le="([^"]+)"\}$')
    grown = sorted((float(m[1]), after[k] - before.get(k, 0)) for k in after if (m := label.match(k)))
    total = grown[-1][1] if grown else 0
    return next((bound for bound, n in grown if total and n >= share * total), float("nan")), int(total)
