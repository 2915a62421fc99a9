// SPDX-License-Identifier: MIT
// The playground's frame: navigation, model, colours, what went wrong; and one view at a time. The page holds no connection unless something is
// being written, asks no faster than every two seconds, and talks to this server alone.
//
//   lib/     html (Preact and htm), store (state, localStorage, address), server (models, errors), api (HTTP), ui, format, and what several views
//            share: answer, chances, token_text, sampling, view_as, inspect, chart
//   views/   one file a view, NAME.js, whose default export is its component; larger views have a folder of parts
//   vendor/  third-party code, made when the program is built (packages.py)

import { html, render, useEffect, useState } from "./lib/html.js";
import { chooseModel, chosenModel, listModels, models, notice, useKey } from "./lib/server.js";
import { address, persistentStore, useStore } from "./lib/store.js";

const VIEWS = [
  ["complete", "Complete"],
  ["chat", "Chat"],
  ["compare", "Compare"],
  ["tokens", "Tokens"],
  ["inside", "Inside"],
  ["train", "Train"],
  ["system", "System"],
];
const WITHOUT_MODEL = ["train", "system"]; // the others need one
const THEMES = [["auto", "◐", "as the system"], ["light", "☀", "light"], ["dark", "☾", "dark"]];
const ORIGINS = [["served", "Served"], ["result", "Fine-tuned"], ["checkpoint", "Checkpoints"], ["live", "Being trained"]];

const theme = persistentStore("theme", "auto", true);
const showTheme = (name) => { document.documentElement.dataset.theme = name; };
theme.subscribe(showTheme);
showTheme(theme.get());

function ThemeButton() {
  const now = useStore(theme);
  const at = Math.max(0, THEMES.findIndex(([name]) => name === now));
  const [, sign, words] = THEMES[at];
  return html`<button id="theme" class="icon" type="button" aria-label=${`Colours: ${words}`} title=${`Colours: ${words}`}
    onClick=${() => theme.set(THEMES[(at + 1) % THEMES.length][0])}>${sign}</button>`;
}

function ModelPicker() {
  const { state, list } = useStore(models);
  const id = useStore(chosenModel);
  const option = (model) => html`<option value=${model.id} selected=${model.id === id}>${model.id}</option>`;
  const groups = ORIGINS.map(([origin, label]) => [label, list.filter((m) => (m.couplet?.origin ?? "served") === origin)]).filter(([, some]) => some.length > 0);
  return html`<label class="sr" for="model">Model</label>
    <select id="model" value=${id} disabled=${state !== "ready" || list.length === 0} title="The model that this page talks to" onChange=${(e) => chooseModel(e.target.value)}>
      ${list.length === 0 && html`<option value="">${state === "ready" ? "no model" : "loading…"}</option>`}
      ${groups.length === 1 ? groups[0][1].map(option) : groups.map(([label, some]) => html`<optgroup label=${label}>${some.map(option)}</optgroup>`)}
    </select>`;
}

function Notice() {
  const now = useStore(notice);
  const [key, setKey] = useState("");
  if (!now) return null;
  const close = () => {
    document.getElementById("main").focus({ preventScroll: true }); // not lost with the button
    notice.set(null);
  };
  const submit = (event) => {
    event.preventDefault();
    close();
    useKey(key.trim(), now.again);
    setKey("");
  };
  return html`<div id="notice" class="notice" role="alert">
    <p>${now.text}</p>
    ${now.wantKey && html`<form id="key-form" onSubmit=${submit}>
      <label for="key">API key</label>
      <input id="key" type="password" autocomplete="off" spellcheck="false" placeholder="sk-couplet-…" value=${key} onInput=${(e) => setKey(e.target.value)}
        ref=${(node) => { if (node && !node.dataset.seen) { node.dataset.seen = 1; node.focus(); } }} />
      <button class="primary" type="submit">Use this key</button>
    </form>`}
    <div class="notice-actions">
      ${now.again && !now.wantKey && html`<button type="button" onClick=${() => { close(); now.again(); }}>Try again</button>`}
      <button type="button" class="quiet" onClick=${close}>Dismiss</button>
    </div>
  </div>`;
}

/** Instead of a view that can do nothing without a model. */
function NoModel() {
  return html`<section class="card"><div class="empty-state"><h2>No model is loaded</h2>
    <p>The server runs, but it was started without a model. Stop it and start it with one, for example:</p>
    <pre><code>couplet serve --model models/SmolLM2-135M-Instruct.Q4_1.gguf</code></pre>
    <p class="hint"><code>./start</code> fetches this model and serves it. A directory in Hugging Face's layout or any GPT-2 or Llama <code>.gguf</code> file works too.</p>
    ${VIEWS.some(([name]) => name === "train") && html`<p class="hint">Or make one here: <a href="#train">Train</a> starts from nothing, with a text of yours.</p>`}
  </div></section>`;
}

const reload = () => location.reload();

/** The open view's component, loaded on first use. */
function useView(name) {
  const [view, setView] = useState({ name: null, Component: null });
  useEffect(() => {
    let gone = false;
    import(`./views/${name}.js`).then(
      (module) => {
        if (gone) return;
        if (notice.get()?.again === reload) notice.set(null);
        setView({ name, Component: module.default });
      },
      () => { if (!gone) notice.set({ text: "A part of the page did not load. Is couplet still running?", again: reload, wantKey: false }); });
    return () => { gone = true; };
  }, [name]);
  return view.name === name ? view.Component : null;
}

function App() {
  const wanted = useStore(address, (a) => a.view);
  const name = VIEWS.some(([one]) => one === wanted) ? wanted : "complete";
  const title = VIEWS.find(([one]) => one === name)[1];
  const View = useView(name);
  const none = useStore(models, (m) => m.state === "ready" && m.list.length === 0) && !WITHOUT_MODEL.includes(name);
  useEffect(() => { // what went wrong in another view is no longer of interest
    const now = notice.get();
    if (now && !now.wantKey && now.again !== listModels) notice.set(null);
  }, [name]);
  useEffect(() => {
    document.title = `${title} · couplet`;
    document.querySelector("nav [aria-current]")?.scrollIntoView({ inline: "nearest", block: "nearest" }); // on a phone the pages scroll in their line
  }, [title]);
  return html`
    <a class="skip" href="#main" onClick=${(e) => { e.preventDefault(); document.getElementById("main").focus(); }}>Skip to the text</a>
    <header class="top">
      <a class="brand" href="#complete" aria-label="couplet, start page">
        <svg viewBox="0 0 32 32" aria-hidden="true"><rect width="32" height="32" rx="8"/><path d="M8 12h16M8 20h11"/></svg><span>couplet</span>
      </a>
      <nav aria-label="Pages">
        ${VIEWS.map(([one, label]) => html`<a href=${`#${one}`} aria-current=${one === name ? "page" : undefined}>${label}</a>`)}
      </nav>
      <div class="top-right"><${ModelPicker} /><${ThemeButton} /></div>
    </header>
    <${Notice} />
    <main id="main" tabindex="-1" class=${`view view-${name}`}>
      <h1 class="sr">${title}</h1>
      ${none ? html`<${NoModel} />` : View && html`<${View} />`}
    </main>`;
}

render(html`<${App} />`, document.getElementById("app"));
listModels();
