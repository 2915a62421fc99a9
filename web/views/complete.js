// SPDX-License-Identifier: MIT
// Complete: a text goes in, the model goes on with it; every token shows what it was chosen from, and any alternative can be taken instead.

import { html, useEffect } from "../lib/html.js";
import { Sampling } from "../lib/sampling.js";
import { address, useStore } from "../lib/store.js";
import { useRunKeys } from "../lib/ui.js";
import { Answer } from "./complete/answer.js";
import { Prompt, Scored } from "./complete/prompt.js";
import { complete, stop } from "./complete/run.js";
import { takeShared } from "./complete/share.js";

export default function Complete() {
  const given = useStore(address, (a) => a.params.prompt);
  useEffect(takeShared, [given]);
  useRunKeys(() => complete(), stop);
  return html`<div class="with-side">
    <div class="stack"><${Prompt} /><${Scored} /><${Answer} /></div>
    <aside aria-label="Sampling"><${Sampling} open=${matchMedia("(min-width: 861px)").matches} /></aside>
  </div>`;
}
