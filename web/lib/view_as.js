// SPDX-License-Identifier: MIT
// A request as a program would send it: curl, Python (the openai client), JavaScript. A key is never shown, only where it belongs.

import { hasKey } from "./api.js";
import { html, useState } from "./html.js";
import { CopyButton, Dialog, Segmented } from "./ui.js";

const OPENAI = new Set(["model", "prompt", "messages", "temperature", "top_p", "max_tokens", "seed", "stop", "presence_penalty", "frequency_penalty",
  "logit_bias", "logprobs", "top_logprobs", "stream", "stream_options"]);
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(path, body) {
  const key = hasKey() ? ' -H "Authorization: Bearer $COUPLET_API_KEY"' : "";
  return `curl -N ${location.origin}${path} -H "Content-Type: application/json"${key} \\\n  -d ${quoted(JSON.stringify(body, null, 2))}\n`;
}

/** A JSON value as Python writes it: what differs outside of strings are three words. */
function python(value, indent = "    ") {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value), [open, close] = list ? "[]" : "{}", more = `${indent}    `;
  const items = list ? value.map((v) => python(v, more)) : Object.entries(value).map(([name, v]) => `${JSON.stringify(name)}: ${python(v, more)}`);
  const line = items.join(", ");
  if (line.length < 100 && !line.includes("\n")) return `${open}${line}${close}`;
  return `${open}\n${items.map((one) => more + one).join(",\n")},\n${indent}${close}`;
}

const isJob = (path) => path.endsWith("jobs"); // a fine-tuning job, whose answer is no stream

function pythonProgram(path, body) {
  const chat = path.includes("chat"), entries = Object.entries(body);
  const ours = ([name]) => (isJob(path) ? name === "couplet" : !OPENAI.has(name));
  const known = entries.filter((entry) => !ours(entry)), more = entries.filter(ours);
  const lines = known.map(([name, value]) => `    ${name}=${python(value)},`);
  if (more.length > 0) lines.push(`    extra_body=${python(Object.fromEntries(more))},`);
  return `import os
from openai import OpenAI

client = OpenAI(base_url=${JSON.stringify(`${location.origin}/v1`)}, api_key=os.environ.get("COUPLET_API_KEY", "none"))
${isJob(path) ? "job = client.fine_tuning.jobs" : `stream = client.${chat ? "chat." : ""}completions`}.create(
${lines.join("\n")}
)
${isJob(path) ? "print(job.id)" : `for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].${chat ? 'delta.content or ""' : "text"}, end="", flush=True)
print()`}
`;
}

function javascript(path, body) {
  const chat = path.includes("chat");
  const key = hasKey() ? ", Authorization: `Bearer ${process.env.COUPLET_API_KEY}`" : "";
  return `const response = await fetch(${JSON.stringify(location.origin + path)}, {
  method: "POST",
  headers: { "Content-Type": "application/json"${key} },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),
});
if (!response.ok) throw new Error(await response.text());
${isJob(path) ? "console.log((await response.json()).id);" : `let held = "", text = "";
for await (const piece of response.body.pipeThrough(new TextDecoderStream())) {
  const lines = (held + piece).split("\\n");
  held = lines.pop();
  for (const line of lines) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const [choice] = JSON.parse(line.slice(6)).choices;
    text += choice?.${chat ? "delta.content" : "text"} ?? "";
  }
}
console.log(text);`}
`;
}

const PROGRAMS = [["curl", "curl"], ["python", "Python"], ["javascript", "JavaScript"]];
const FORMS = { curl, python: pythonProgram, javascript };

/** A button that shows the request. request() gives {path, body}, asked when it is opened; link() an address of the page that carries it, or null. */
export function ViewAs({ request, link }) {
  const [open, setOpen] = useState(null);
  const [form, setForm] = useState("curl");
  const text = open && (form === "link" ? link() : FORMS[form](open.path, open.body));
  return html`<button type="button" class="quiet" onClick=${() => setOpen(request())}>View as…</button>
    ${open && html`<${Dialog} title="This request elsewhere" className="view-as" onClose=${() => setOpen(null)}>
      <div class="stack">
        <div class="row">
          <${Segmented} label="Form" value=${form} options=${link ? [...PROGRAMS, ["link", "Link"]] : PROGRAMS} onChange=${setForm} />
          ${text && html`<${CopyButton} text=${text} className="" />`}
        </div>
        ${text ? html`<pre id="view-as" tabindex="0" class=${form === "link" ? "wrapped" : ""}><code>${text}</code></pre>`
          : html`<p class="hint">The prompt is too long for an address. Export the answer as a file instead.</p>`}
        <p class="hint">${form === "link"
          ? "Opens this page with this prompt and these settings. It carries no key; whoever opens it must reach this server."
          : hasKey() ? "The key is read from the environment: COUPLET_API_KEY." : "This server wants no key."}</p>
      </div>
    <//>`}`;
}
