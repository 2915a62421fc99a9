// SPDX-License-Identifier: MIT
// Train: what stands in the address says which page of it is open.
//
//   #train                   the queue and the runs; drop a file anywhere to begin; or start from nothing
//   #train?new=1[&file=ID]   a new fine-tune: file, base, settings, estimate
//   #train?job=ID            one job, while it runs and afterwards
//   #train?compare=ID,ID     several runs in one chart

import { html } from "../lib/html.js";
import { linkTo, useStore, address } from "../lib/store.js";
import { CompareRuns } from "./train/compare_runs.js";
import { DropZone, hovering, useForNew, usePageDrop } from "./train/drop.js";
import { addFile, UploadProgress } from "./train/files.js";
import { Job } from "./train/job.js";
import { NewJob } from "./train/new_job.js";
import { Nothing } from "./train/nothing.js";
import { Queue } from "./train/queue.js";
import { Gate } from "./train/gate.js";

const Back = ({ children }) => html`<nav class="train-back" aria-label="Train"><a href=${linkTo("train")}>← All runs</a><span class="hint">${children}</span></nav>`;

function Overview() {
  return html`<div class="stack">
    <div class="train-begin">
      <${DropZone} />
      <${Nothing} />
    </div>
    <${Queue} />
  </div>`;
}

/** Where no drop zone is in sight: that a file may be let go here too. */
function Hover() {
  return useStore(hovering) === "page" && html`<p class="train-hover" role="status">Let go, and a new fine-tune begins with it</p>`;
}

function Page({ params }) {
  usePageDrop((file) => addFile(file, file.name, useForNew));
  if (params.job) return html`<div class="stack"><${Back} /><${UploadProgress} /><${Hover} /><${Job} key=${params.job} id=${params.job} /></div>`;
  if (params.compare) return html`<div class="stack"><${Back} /><${UploadProgress} /><${Hover} /><${CompareRuns} ids=${params.compare.split(",").filter(Boolean)} /></div>`;
  if (params.new) return html`<div class="stack"><${Back} />${params.file && html`<${Hover} />`}<${NewJob} file=${params.file ?? null} like=${params.like ?? null} /></div>`;
  return html`<${Overview} />`;
}

export default function Train() {
  const params = useStore(address, (a) => a.params);
  return html`<${Gate}><${Page} params=${params} /><//>`;
}
