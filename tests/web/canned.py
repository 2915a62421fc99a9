# SPDX-License-Identifier: MIT
"""Answers that no model would give when asked: /v1/completions and /v1/chat/completions replaced by a stream of given tokens."""
import json


def named(token):
    """A token's text as the server writes it in /v1/completions: its bytes where it is no whole character."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{b:02x}" for b in token)


def stream(tokens, chat=False):
    """`tokens`: bytes or text each; every one has eight alternatives of the same make and is the likeliest."""
    tokens = [t.encode() if isinstance(t, str) else t for t in tokens]
    out = []
    for i, token in enumerate(tokens):
        others = [(tokens[(i + k) % len(tokens)], 1000 + k) for k in range(1, 8)]
        ranked = [(token, 500 + i, -0.5 - i % 7), *((other, n, -8.0 - k) for k, (other, n) in enumerate(others))]
        finish = "length" if i == len(tokens) - 1 else None
        first = {"prompt_token_ids": [1, 2]} if i == 0 else {}
        if chat:
            top = [{"token": named(t).removeprefix("bytes:"), "bytes": list(t), "logprob": p, "id": n} for t, n, p in ranked]
            choice = {"index": 0, "delta": {"content": token.decode(errors="replace")}, "logprobs": {"content": [{**top[0], "rank": 1, "top_logprobs": top}]}, "finish_reason": finish, **first}
        else:
            best = {}
            for t, n, p in ranked:
                best.setdefault(named(t), (n, p))
            choice = {"index": 0, "text": token.decode(errors="replace"), "finish_reason": finish, "token_ids": [500 + i], **first,
                      "logprobs": {"tokens": [named(token)], "token_logprobs": [-0.5 - i % 7], "top_logprobs": [{name: p for name, (_, p) in best.items()}],
                                   "top_token_ids": [[n for n, _ in best.values()]], "token_ranks": [1]}}
        out.append({"choices": [choice], "usage": None})
    out.append({"choices": [], "usage": {"prompt_tokens": 2, "completion_tokens": len(tokens), "total_tokens": 2 + len(tokens)}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in out) + "data: [DONE]\n\n"


def answer_with(page, tokens):
    """From now on the page's models answer with these tokens."""
    for path, chat in (("**/v1/completions", False), ("**/v1/chat/completions", True)):
        page.route(path, lambda route, chat=chat: route.fulfill(status=200, headers={"Content-Type": "text/event-stream"}, body=stream(tokens, chat)))
