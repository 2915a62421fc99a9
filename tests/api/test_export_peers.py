# SPDX-License-Identifier: MIT
"""What a job exports, in the programs it is exported for: PEFT's adapter in `peft`, merged weights in `transformers`, GGUF in llama.cpp (PyPI's xllamacpp,
in this Python or in COUPLET_LLAMA_CPP_PYTHON). Each gives the served model's log-probabilities. By name: ./check export-peers."""
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import time

import httpx
import pytest
from chat_model import make_chat_nano
from serving import ROOT, Server, make_nano

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

PEER_PYTHON = os.environ.get("COUPLET_LLAMA_CPP_PYTHON", sys.executable)
ROWS = "".join(json.dumps({"prompt": f"Question {i}: ", "completion": f"answer {i % 7} é."}) + "\n" for i in range(24)).encode()
VOCABULARY, LENGTH = 257, 48
# Arguments: the model's file; prompts as JSON lists of ids. One line a prompt: the log-probability of every id that may follow;
# what it draws is an "a", as it says nothing of half a character or the end.
LLAMA_CPP = """
import json, os, sys, urllib.request, xllamacpp as x
p = x.CommonParams()
p.model.path, p.n_ctx, p.n_parallel, p.warmup = sys.argv[1], 256, 1, False
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.cache_type_k = p.cache_type_v = x.ggml_type.GGML_TYPE_F32
p.flash_attn_type = x.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
s = x.Server(p)
for ids in json.loads(sys.argv[2]):
    body = json.dumps({"prompt": ids, "n_predict": 1, "n_probs": int(sys.argv[3]), "logit_bias": [[64, 1000]], "cache_prompt": False}).encode()
    said = json.load(urllib.request.urlopen(urllib.request.Request(s.listening_address + "/completion", body, {"Content-Type": "application/json"})))
    print(json.dumps({t["id"]: t["logprob"] for t in said["completion_probabilities"][0]["top_logprobs"]}), flush=True)
os._exit(0)
"""


class Service:
    def __init__(self, server, folder, models):
        self.server, self.folder, self.models = server, folder, models
        self.http = httpx.Client(base_url=server.url + "/v1", timeout=300)
        self.jobs = {}

    def ask(self, method, path, **options):
        answer = self.http.request(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer

    def job(self, model, kind):
        """A finished job; made once."""
        if (model, kind) in self.jobs:
            return self.jobs[model, kind]
        file = self.ask("POST", "/files", files={"file": ("rows.jsonl", ROWS)}, data={"purpose": "fine-tune"}).json()["id"]
        job = self.ask("POST", "/fine_tuning/jobs", json={"model": model, "training_file": file, "couplet": {
            "training_type": {"type": kind}, "max_steps": 8, "learning_rate": 1e-2 if kind == "lora" else 1e-3, "validation_split": 0.2}}).json()
        while job["status"] not in ("succeeded", "failed"):
            time.sleep(0.1)
            job = self.ask("GET", f"/fine_tuning/jobs/{job['id']}").json()
        assert job["status"] == "succeeded", job["error"]
        self.jobs[model, kind] = job
        return job

    def hides(self, data):
        """Nothing that leaves the server says where things lie on it."""
        for place in (self.server.data.name, str(self.folder)):
            assert place.encode() not in data

    def export(self, job, kind):
        """The path of the export: a directory, or GGUF's file."""
        data = self.ask("GET", f"/fine_tuning/jobs/{job['id']}/export", params={"format": kind}).content
        self.hides(data)
        to = self.folder / f"{job['id']}-{kind}"
        if kind == "gguf":
            to.write_bytes(data)
            return to
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            archive.extractall(to)
        (inside,) = to.iterdir()
        return inside

    def served(self, model, ids):
        reply = self.ask("POST", "/completions", json={"model": model, "prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 0}).json()
        return reply["choices"][0]["logprobs"]["token_logprobs"][1:]


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    models = {"gpt2": make_chat_nano(folder / "gpt2"), "llama": make_nano(folder / "llama", "--arch", "llama", "--layers", "2"), "q4_1": folder / "q4_1.gguf"}
    subprocess.run([sys.executable, str(ROOT / "tests/tools/make_gguf.py"), "--type", "q4_1", "--byte-vocab", str(models["llama"]), str(models["q4_1"])],
                   check=True)
    with Server(*[word for name, path in models.items() for word in ("--model", f"{name}={path}")], "--weights", "f32") as server:
        yield Service(server, folder, models)
        assert server.stop() == 0, server.output()[-4000:]


def texts():
    draw = random.Random(3)
    return [[draw.randrange(VOCABULARY) for _ in range(LENGTH)] for _ in range(4)]


def difference(service, model, network):
    """The largest one between the server's log-probabilities of the texts' tokens and a torch network's."""
    most = 0
    for ids in texts():
        with torch.no_grad():
            every = torch.log_softmax(network(torch.tensor([ids])).logits[0].double(), -1)
        theirs = every[torch.arange(LENGTH - 1), torch.tensor(ids[1:])]
        most = max(most, (theirs - torch.tensor(service.served(model, ids), dtype=torch.double)).abs().max().item())
    print(f"{model}: {most:.1e}")
    return most


def network_of(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@pytest.mark.parametrize("model", ["gpt2", "llama"])
def test_adapter_in_peft(service, model):
    job = service.job(model, "lora")
    folder = service.export(job, "peft")
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == model
    base = network_of(service.models[model])
    untrained = difference(service, job["fine_tuned_model"], base)
    assert difference(service, job["fine_tuned_model"], peft.PeftModel.from_pretrained(base, folder).eval()) < 1e-4 < untrained / 10


@pytest.mark.parametrize("model, kind", [("gpt2", "lora"), ("gpt2", "full"), ("llama", "lora"), ("llama", "full"), ("q4_1", "lora")])
def test_weights_in_transformers(service, model, kind):
    job = service.job(model, kind)
    folder = service.export(job, "safetensors")
    assert difference(service, job["fine_tuned_model"], network_of(folder)) < 1e-4
    assert transformers.AutoTokenizer.from_pretrained(folder)("Question", add_special_tokens=False)["input_ids"] == service.http.post(
        service.server.url + "/tokenize", json={"model": model, "prompt": "Question", "add_special_tokens": False}).json()["tokens"]


@pytest.mark.parametrize("model, kind, limit", [("gpt2", "lora", 1e-2), ("gpt2", "full", 1e-2), ("llama", "lora", 1e-3), ("llama", "full", 1e-3),
                                                ("q4_1", "lora", 1e-3)])
def test_gguf_in_llama_cpp(service, model, kind, limit):
    if subprocess.run([PEER_PYTHON, "-c", "import xllamacpp"], capture_output=True).returncode:
        pytest.skip("no xllamacpp in COUPLET_LLAMA_CPP_PYTHON")
    job = service.job(model, kind)
    prompts = [ids[:n] for ids in texts() for n in (8, LENGTH - 1)]
    run = subprocess.run([PEER_PYTHON, "-c", LLAMA_CPP, str(service.export(job, "gguf")), json.dumps(prompts), str(VOCABULARY + 2)], capture_output=True,
                         text=True, timeout=120)
    said = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    assert len(said) == len(prompts), run.stderr[-2000:]
    most = 0
    for ids, theirs in zip(prompts, said):
        for last in range(0, VOCABULARY, 8):  # every eighth token that may follow
            most = max(most, abs(theirs[str(last)] - service.served(job["fine_tuned_model"], [*ids, last])[-1]))
    print(f"{model} {kind}: {most:.1e}")
    assert most < limit


def test_result_files_hide_the_server(service):
    for model, kind in (("gpt2", "full"), ("llama", "lora")):
        job = service.job(model, kind)
        for file in job["result_files"]:
            service.hides(service.ask("GET", f"/files/{file}/content").content)
        service.hides(service.ask("GET", f"/fine_tuning/jobs/{job['id']}/events", params={"limit": 1000}).content)
        service.hides(json.dumps(job).encode())
