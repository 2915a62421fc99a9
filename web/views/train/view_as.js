// SPDX-License-Identifier: MIT
// A job's request as one would type it: curl, and Python with the stock openai client.

import { hasKey } from "../../lib/api.js";
import { html, useState } from "../../lib/html.js";
import { CopyButton, Segmented } from "../../lib/ui.js";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

export function asCurl(body, origin = location.origin, key = hasKey()) {
  const authorization = key && '-H "Authorization: Bearer $COUPLET_API_KEY"';
  return [`curl ${origin}/v1/fine_tuning/jobs`, "-H 'Content-Type: application/json'", authorization, `-d ${quoted(JSON.stringify(body, null, 2))}`]
    .filter(Boolean).join(" \\\n  ");
}

/** JSON as Python: what differs outside of strings are three words. */
function python(value, indent) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value), more = `${indent}    `;
  const items = list ? value.map((v) => python(v, more)) : Object.entries(value).map(([name, v]) => `${JSON.stringify(name)}: ${python(v, more)}`);
  const line = items.join(", "), [open, close] = list ? "[]" : "{}";
  return line.length < 80 && !line.includes("\n") ? `${open}${line}${close}` : `${open}\n${items.map((one) => more + one).join(",\n")},\n${indent}${close}`;
}

export function asPython({ couplet, ...known }, origin = location.origin, key = hasKey()) {
  const parts = Object.entries(known).map(([name, value]) => `    ${name}=${python(value, "    ")},`);
  if (couplet) parts.push(`    extra_body={"couplet": ${python(couplet, "    ")}},`);
  const given = key ? 'os.environ["COUPLET_API_KEY"]' : '"any"';
  return `${key ? "import os\n" : ""}from openai import OpenAI\n\nclient = OpenAI(base_url=${JSON.stringify(`${origin}/v1`)}, api_key=${given})\n`
    + `job = client.fine_tuning.jobs.create(\n${parts.join("\n")}\n)\nprint(job.id)`;
}

export function ViewAs({ body }) {
  const [as, setAs] = useState("curl");
  const words = as === "curl" ? asCurl(body) : asPython(body);
  return html`<details class="card train-view-as"><summary>View as curl or Python</summary>
    <div class="card-head"><${Segmented} label="View as" value=${as} onChange=${setAs} options=${[["curl", "curl"], ["python", "Python"]]} /><${CopyButton} text=${words} /></div>
    <pre tabindex="0" aria-label="The same request">${words}</pre>
  </details>`;
}
