// SPDX-License-Identifier: MIT
// A finished job: is it better, talk to it, a short name, its files and exports.

import { call, download, request, text } from "../../lib/api.js";
import { bytes } from "../../lib/format.js";
import { html, useEffect, useState } from "../../lib/html.js";
import { fail, listModels, modelInfo, models } from "../../lib/server.js";
import { linkTo, useStore } from "../../lib/store.js";
import { Card, Select } from "../../lib/ui.js";
import { shortName } from "./control.js";

const FILES = { "results.csv": "Losses of every step", "report.md": "Report", "results.html": "Answers side by side", "results.json": "Answers for programs" };
const TONE = { better: "good", worse: "bad" };
const TYPES = [["q8_0", "Q8_0, small"], ["f16", "F16"], ["f32", "F32, exact"]];

/** The result files as objects of the API; [] while they are asked for. */
export function useResultFiles(job) {
  const [files, setFiles] = useState([]);
  const ids = job.result_files.join();
  useEffect(() => {
    const control = new AbortController();
    const one = (id) => call(`/v1/files/${id}`, undefined, control.signal).catch((error) => { if (error.status !== 404) throw error; });
    const read = () => Promise.all(job.result_files.map(one)).then((all) => setFiles(all.filter(Boolean)), (error) => fail(error, read));
    if (ids) read();
    return () => control.abort();
  }, [ids]);
  return files;
}

/** The report's first line: [verdict, the rest]. */
function useVerdict(files) {
  const id = files.find((file) => file.filename === "report.md")?.id;
  const [line, setLine] = useState(null);
  useEffect(() => {
    if (!id) return undefined;
    const control = new AbortController();
    const take = (report) => setLine(report.split("\n", 1)[0].replaceAll("->", "→"));
    text(`/v1/files/${id}/content`, control.signal).then(take, () => {}); // it is among the files below
    return () => control.abort();
  }, [id]);
  return line === null ? null : [line.split(":", 1)[0], line.slice(line.indexOf(":") + 1).trim()];
}

function Save({ path, name, children, title }) {
  const [busy, setBusy] = useState(false);
  const save = async () => {
    setBusy(true);
    try {
      await download(path, name);
    } catch (error) {
      fail(error, save);
    } finally {
      setBusy(false);
    }
  };
  return html`<button type="button" class="job-save" disabled=${busy} title=${title} onClick=${save}>${busy ? "Preparing…" : children}</button>`;
}

function Exports({ job }) {
  const [type, setType] = useState("q8_0");
  const name = shortName(job).replace(/[^\w.-]+/g, "-");
  const path = (query) => `/v1/fine_tuning/jobs/${job.id}/export?${query}`;
  return html`<div class="job-saves">
    ${job.couplet.training_type.type === "lora" && html`<${Save} path=${path("format=peft")} name=${`${name}-peft.tar`}
      title="The adapter alone, for peft and transformers">Adapter (PEFT)<//>`}
    <${Save} path=${path("format=safetensors")} name=${`${name}-safetensors.tar`} title="The whole model as Hugging Face keeps it">Safetensors<//>
    <span class="job-gguf"><${Save} path=${path(`format=gguf&type=${type}`)} name=${`${name}-${type}.gguf`} title="One file, for llama.cpp and others">GGUF<//>
      <${Select} label="Numbers in the GGUF file" value=${type} options=${TYPES} onChange=${setType} /></span>
  </div>`;
}

function Alias({ model }) {
  const list = useStore(models, (m) => m.list);
  const [name, setName] = useState(""), [busy, setBusy] = useState(false);
  const now = list.filter((m) => m.alias_of === model).map((m) => m.id);
  const submit = async (event) => {
    event?.preventDefault();
    setBusy(true);
    try {
      await request("PUT", `/v1/models/${encodeURIComponent(name.trim())}`, { model });
      await listModels();
      setName("");
    } catch (error) {
      fail(error, submit);
    } finally {
      setBusy(false);
    }
  };
  return html`<form class="job-alias" onSubmit=${submit}>
    <label for="alias">A shorter name</label>
    <input id="alias" value=${name} spellcheck="false" autocomplete="off" placeholder="my-model" onInput=${(e) => setName(e.target.value)} />
    <button type="submit" disabled=${busy || name.trim() === ""}>Give</button>
    ${now.length > 0 && html`<span class="hint">also called ${now.join(", ")}</span>`}
  </form>`;
}

export function Finished({ job, files }) {
  const verdict = useVerdict(files), model = job.fine_tuned_model;
  useStore(models);
  const chats = Boolean(modelInfo(model)?.meta?.chat_template ?? modelInfo(job.model)?.meta?.chat_template);
  const base = job.model === "new" ? null : job.model;
  return html`<${Card} title="Finished" id="finished" tools=${html`<code class="job-name">${model}</code>`}>
    <div class="job-finished">
      <div>
        ${verdict && html`<p class="job-verdict"><span class=${`tag ${TONE[verdict[0]] ?? ""}`}>${verdict[0]}</span> ${verdict[1]}</p>`}
        <div class="actions">
          <a class="job-go" href=${linkTo(chats ? "chat" : "complete", { model })}>${chats ? "Talk to it" : "Let it write"}</a>
          ${base && html`<a href=${linkTo("compare", { models: `${base},${model}` })}>Compare with its base</a>`}
          <a href=${linkTo("inside", { model })}>Look inside</a>
          <a href=${linkTo("train", { new: 1, like: job.id })}>Train again like this</a>
        </div>
        <${Alias} model=${model} />
      </div>
      <div>
        <h3>Take it with you</h3>
        <${Exports} job=${job} />
        ${files.length > 0 && html`<div class="job-saves">${files.map((file) => html`<${Save} path=${`/v1/files/${file.id}/content`} name=${file.filename}
          title=${`${FILES[file.filename] ?? "A result"}, ${bytes(file.bytes)}`}>${file.filename}<//>`)}</div>`}
      </div>
    </div>
  <//>`;
}
