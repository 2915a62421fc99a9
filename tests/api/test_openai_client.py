# SPDX-License-Identifier: MIT
"""The stock `openai` Python client, with nothing but base_url (and a key of no meaning)."""
import httpx
import pytest
from chat_model import make_chat_nano
from serving import Server

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def chat_server(tmp_path_factory):
    with Server("--model", f"chat:nano={make_chat_nano(tmp_path_factory.mktemp('chat') / 'nano')}") as running:
        yield running


@pytest.fixture(scope="module")
def client(chat_server):
    with openai.OpenAI(base_url=chat_server.url + "/v1", api_key="none", max_retries=0, timeout=30) as c:
        yield c


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == ["chat:nano"]
    one = client.models.retrieve("chat:nano")
    assert (one.id, one.object, one.max_model_len) == ("chat:nano", "model", 512)
    with pytest.raises(openai.NotFoundError) as e:
        client.models.retrieve("gpt-4")
    assert e.value.code == "model_not_found"


def test_completion(client):
    r = client.completions.create(model="chat:nano", prompt="Once upon", max_tokens=7, temperature=0, logprobs=3, echo=True)
    choice = r.choices[0]
    assert r.object == "text_completion" and choice.text.startswith("Once upon") and choice.finish_reason in ("length", "stop")
    assert r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens
    assert r.usage.prompt_tokens == 9 and r.usage.prompt_tokens_details.cached_tokens >= 0
    assert len(choice.logprobs.tokens) == 9 + r.usage.completion_tokens
    assert choice.logprobs.token_logprobs[0] is None and choice.logprobs.top_logprobs[0] is None
    assert r.system_fingerprint.startswith("fp_") and r._request_id


def test_completion_stream_is_the_same_text(client):
    whole = client.completions.create(model="chat:nano", prompt=["ab", "cd"], n=2, max_tokens=12, seed=5, temperature=1)
    texts, reasons, usage = {}, {}, None
    for chunk in client.completions.create(model="chat:nano", prompt=["ab", "cd"], n=2, max_tokens=12, seed=5, temperature=1, stream=True,
                                           stream_options={"include_usage": True}):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
            reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
        usage = chunk.usage or usage
    assert [texts[c.index] for c in whole.choices] == [c.text for c in whole.choices]
    assert [reasons[c.index] for c in whole.choices] == [c.finish_reason for c in whole.choices]
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_chat(client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
    r = client.chat.completions.create(model="chat:nano", messages=messages, max_completion_tokens=9, temperature=0, logprobs=True, top_logprobs=2)
    choice = r.choices[0]
    assert r.object == "chat.completion" and choice.message.role == "assistant" and choice.finish_reason in ("length", "stop")
    assert len(choice.logprobs.content) == r.usage.completion_tokens - (choice.finish_reason == "stop")
    for entry in choice.logprobs.content:
        assert len(entry.top_logprobs) == 2 and entry.logprob == entry.top_logprobs[0].logprob and entry.bytes is not None
    text, roles, last = "", [], None
    with client.chat.completions.create(model="chat:nano", messages=messages, max_completion_tokens=9, temperature=0, stream=True) as stream:
        for chunk in stream:
            assert chunk.object == "chat.completion.chunk"
            delta = chunk.choices[0].delta
            roles.append(delta.role)
            text += delta.content or ""
            last = chunk.choices[0].finish_reason
    assert roles[0] == "assistant" and set(roles[1:]) <= {None}
    assert text == choice.message.content and last == choice.finish_reason


def test_errors(client):
    with pytest.raises(openai.NotFoundError) as e:
        client.completions.create(model="none", prompt="a")
    assert (e.value.code, e.value.param, e.value.type) == ("model_not_found", "model", "invalid_request_error")
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="chat:nano", prompt="a", temperature=3)
    assert (e.value.code, e.value.param) == ("value_out_of_range", "temperature")
    with pytest.raises(openai.BadRequestError) as e:
        client.completions.create(model="chat:nano", prompt="a" * 600)
    assert e.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="chat:nano", messages=[{"role": "user", "content": "a"}],
                                       tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])
    assert (e.value.code, e.value.param) == ("unsupported_parameter", "tools")


def test_no_template(start_server):
    running = start_server()
    client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as e:
        client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "a"}])
    assert e.value.code == "no_chat_template"


def test_timeout_leaves_nothing_behind(chat_server, client):
    slow = client.with_options(timeout=httpx.Timeout(5, read=0.001), max_retries=0)
    for _ in range(5):
        with pytest.raises(openai.APITimeoutError):
            slow.completions.create(model="chat:nano", prompt="a", max_tokens=400, n=20, extra_body={"ignore_eos": True})
    assert client.completions.create(model="chat:nano", prompt="a", max_tokens=3).usage.prompt_tokens == 1
    assert "couplet:num_requests_running 0" in httpx.get(chat_server.url + "/metrics").text


def test_full_queue_is_429_with_a_pause(start_server):
    running = start_server("--max-running", "2", "--max-waiting", "2")
    client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.RateLimitError) as e:
        client.completions.create(model="nano", prompt="a", n=5, max_tokens=3)
    assert e.value.code == "rate_limit_exceeded" and int(e.value.response.headers["retry-after"]) >= 1
    assert len(client.completions.create(model="nano", prompt="a", n=4, max_tokens=3).choices) == 4


def test_unknown_fields_are_named(chat_server):
    r = httpx.post(chat_server.url + "/v1/completions", json={"model": "chat:nano", "prompt": "a", "max_tokens": 1, "zebra": 1, "ca\nt": None})
    assert r.status_code == 200 and set(r.headers["x-couplet-ignored"].split(", ")) == {"zebra", "ca?t"}
