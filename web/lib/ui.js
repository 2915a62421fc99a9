// SPDX-License-Identifier: MIT
// The few building blocks that all views share, so that they look and behave alike.

import { html, useEffect, useId, useRef, useState } from "./html.js";
import { restOf } from "./store.js";

/** A framed part of a view. `tools` stand right of the title. `labelFor` makes the title the label of that control. */
export function Card({ title, tools, labelFor, className = "", children, ...rest }) {
  const head = labelFor ? html`<label for=${labelFor}>${title}</label>` : html`<h2>${title}</h2>`;
  return html`<section class=${`card ${className}`} ...${rest}>
    ${(title || tools) && html`<div class="card-head">${title ? head : html`<span></span>`}${tools && html`<span class="card-tools">${tools}</span>`}</div>`}
    ${children}
  </section>`;
}

/** One of a few choices. options: [[value, label, title?]]. */
export function Segmented({ label, value, options, onChange, disabled = false }) {
  const name = useId();
  return html`<fieldset class="segmented" disabled=${disabled}>
    <legend class="sr">${label}</legend>
    ${options.map(([option, text, title]) => html`<label title=${title}>
      <input type="radio" name=${name} value=${option} checked=${option === value} onChange=${() => onChange(option)} /><span>${text}</span>
    </label>`)}
  </fieldset>`;
}

export function Select({ label, value, options, onChange, disabled = false, visibleLabel = false, ...rest }) {
  const id = useId();
  return html`${label && html`<label class=${visibleLabel ? "select-label" : "sr"} for=${id}>${label}</label>`}
    <select id=${id} value=${value} disabled=${disabled} onChange=${(event) => onChange(event.target.value)} ...${rest}>
      ${options.map(([option, text, off]) => html`<option value=${option} selected=${option === value} disabled=${off}>${text}</option>`)}
    </select>`;
}

/** Copies `text` (a string or a function) and says so. */
export function CopyButton({ text, label = "Copy", className = "quiet" }) {
  const [said, setSaid] = useState(null);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(typeof text === "function" ? text() : text);
      setSaid("Copied");
    } catch {
      setSaid("Copying is not allowed here");
    }
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setSaid(null), 1800);
  };
  return html`<button type="button" class=${className} onClick=${copy}><span aria-live="polite">${said ?? label}</span></button>`;
}

/** A panel above the page, closed by Escape, its button or a click beside it. */
export function Dialog({ title, onClose, children, className = "" }) {
  const node = useRef();
  useEffect(() => {
    node.current.showModal();
    return () => node.current?.close();
  }, []);
  return html`<dialog ref=${node} class=${className} aria-label=${title} onClose=${onClose}
      onClick=${(event) => { if (event.target === node.current) node.current.close(); }}>
    <div class="dialog-body">
      <div class="card-head"><h2>${title}</h2><button type="button" class="quiet" onClick=${() => node.current.close()}>Close</button></div>
      ${children}
    </div>
  </dialog>`;
}

/** What a view shows where there is nothing yet: what it is for and what to do next. */
export function Empty({ title, children, action }) {
  return html`<div class="empty-state"><h2>${title}</h2><div class="hint">${children}</div>${action}</div>`;
}

export function Progress({ share, label }) {
  return html`<div class="progress"><progress max="1" value=${share ?? undefined} aria-label=${label}></progress><span class="stats">${label}</span></div>`;
}

/** Small facts in a row: [[label, value, title?]]. */
export function Facts({ items }) {
  return html`<dl class="facts">${items.filter(Boolean).map(([label, value, title]) => html`<div title=${title}><dt>${label}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** Calls `fn` every `ms` while the page is seen, at once first; never two at a time. `on` false: not at all. */
export function usePolling(fn, ms, on = true) {
  const latest = useRef(fn);
  latest.current = fn;
  useEffect(() => {
    if (!on) return undefined;
    let timer = 0, over = false;
    const turn = async () => {
      if (document.visibilityState === "visible") await latest.current();
      if (!over) timer = setTimeout(turn, ms);
    };
    turn();
    return () => { over = true; clearTimeout(timer); };
  }, [ms, on]);
}

/** `value`, after it has stood still for `ms`; a long text longer. */
export function useSettled(value, ms = 300) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), ms + restOf(value?.length ?? 0));
    return () => clearTimeout(timer);
  }, [value, ms]);
  return settled;
}

/** Ctrl+Enter and Escape anywhere on the page, while the view is open. Escape in a dialog closes that one alone. */
export function useRunKeys(onRun, onStop) {
  const latest = useRef();
  latest.current = { onRun, onStop };
  useEffect(() => {
    const listen = (event) => {
      if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
      if (event.key === "Escape") latest.current.onStop();
      if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      latest.current.onRun();
    };
    document.addEventListener("keydown", listen);
    return () => document.removeEventListener("keydown", listen);
  }, []);
}
