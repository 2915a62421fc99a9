// SPDX-License-Identifier: MIT
// Whether this server, and this key, train at all; where not: why, and what to do. The server is asked once a visit, and again after a new key.

import { call } from "../../lib/api.js";
import { html, useEffect } from "../../lib/html.js";
import { fail, models } from "../../lib/server.js";
import { createStore, useStore } from "../../lib/store.js";
import { Card, Empty } from "../../lib/ui.js";

/** "asking" | "open" | "key" | "scope" | "absent" */
const gate = createStore("asking");

async function ask() {
  try {
    await call("/v1/fine_tuning/jobs?limit=1");
    gate.set("open");
  } catch (error) {
    if (error.status === 403) return gate.set("scope");
    if (error.status === 404) return gate.set("absent");
    if (error.status === 401) gate.set("key");
    fail(error, ask);
  }
}

const WHY = {
  key: ["Training wants an API key", html`Enter a key with the scope <code>train</code> above. Whoever runs the server makes one with
    <code>couplet keys add NAME --scope train</code>.`],
  scope: ["This key may not train", html`It can talk to models, no more: files and fine-tuning jobs need a key with the scope <code>train</code>. Whoever runs
    the server makes one with <code>couplet keys add NAME --scope train</code>; then enter it here.`],
  absent: ["This server does not train", html`It answers, but has no fine-tuning at <code>/v1/fine_tuning/jobs</code>: an older couplet, or a proxy that lets
    nothing but answers through. Ask whoever runs it, or start your own with <code>couplet serve --model PATH</code>.`],
};

const otherKey = () => fail({ status: 401, message: "" }, ask);

export function Gate({ children }) {
  const state = useStore(gate);
  const list = useStore(models, (m) => m.list); // read anew with another key
  useEffect(() => { if (gate.get() !== "open") ask(); }, [list]);
  if (state === "open") return children;
  if (state === "asking") return html`<p class="hint" role="status">Asking the server…</p>`;
  const [title, words] = WHY[state];
  return html`<${Card}><${Empty} title=${title} action=${html`<div class="row">
    ${state === "scope" && html`<button type="button" class="primary" onClick=${otherKey}>Use another key</button>`}
    <button type="button" onClick=${ask}>Ask again</button></div>`}>${words}<//><//>`;
}
