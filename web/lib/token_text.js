// SPDX-License-Identifier: MIT
// A text shown token by token: coloured by surprise, each token with its probability, rank and alternatives on hover, touch or arrow keys.
//
// Tokens are plain spans, added in batches once a frame and never drawn again, so that ten thousand of them stay fast; Preact draws only the card.
// A token: {id, text, name (absent: text), logprob (null: unknown), rank, top: [{id, text, logprob}] likeliest first}. A token without text of its
// own (part of a character, a special token) is a small mark that is not copied with the text.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { chances } from "./chances.js";
import { count, percent, tokenName, visible } from "./format.js";
import { modelInfo } from "./server.js";
import { persistentStore, useStore } from "./store.js";
import { Segmented } from "./ui.js";

/** How tokens are coloured, on all views: "surprise", "turn" (their borders) or "none". */
export const tint = persistentStore("tint", "surprise");
const TINTS = [
  ["surprise", "Surprise", "The less likely a token was, the stronger its colour"],
  ["turn", "Borders", "Where one token ends and the next begins"],
  ["none", "None", "Plain text"],
];
const LEVELS = ["over 50%", "over 20%", "over 5%", "over 1%", "over 0.1%", "less likely"];

/** The switch of colours, and what they mean. */
export function Legend() {
  const now = useStore(tint);
  return html`<span class="legend">
    <${Segmented} label="Colours of the tokens" value=${now} options=${TINTS} onChange=${(to) => tint.set(to)} />
    ${now === "surprise" && html`<span class="legend-scale" role="img" aria-label=${`Probability: from pale, ${LEVELS[0]}, to strong, ${LEVELS[5]}`}>
      likely ${LEVELS.map((words, i) => html`<i class=${`s${i}`} title=${words}></i>`)} surprising</span>`}
  </span>`;
}

const BLOCK_TOKENS = 128; // a block ends at the first line break after so many: the browser lays out few lines anew when text is added

/** The tokens of one text, in the order they come. */
export class TokenLog {
  items = [];
  promptIds = null; // of the prompt that they go on from, where the server told
  version = 0; // counts clear and replace
  #listeners = new Set();

  push(...tokens) {
    for (const token of tokens) this.items.push(token);
    this.#changed();
  }

  replace(items) {
    this.items = items;
    this.version++;
    this.#changed();
  }

  clear() {
    this.replace([]);
  }

  get text() {
    return this.items.map((token) => token.text).join("");
  }

  subscribe(listener) {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #changed() {
    for (const listener of this.#listeners) listener();
  }
}

/** 0 (expected) to 5 (very surprising): the probability is above 1/2, 1/5, 1/20, 1/100, 1/1000, or below. */
export function surprise(logprob) {
  if (logprob === null || logprob === undefined) return 0;
  const at = [0.5, 0.2, 0.05, 0.01, 0.001].findIndex((p) => logprob > Math.log(p));
  return at < 0 ? 5 : at;
}

const nameOf = (token) => visible(token.name ?? token.text);
const isSame = (token, other) =>
  (token.id !== null && token.id !== undefined && other.id !== null ? other.id === token.id : other.text === token.text);

/** "1,204 of 49,152": its place among all tokens that could stand there. */
function rankOf({ rank }, model) {
  const all = modelInfo(model)?.meta?.n_vocab;
  return rank ? count(rank) + (all ? ` of ${count(all)}` : "") : "–";
}

const LINE_BREAKS = /^[\r\n\u2028\u2029]+$/;
const UNSEEN = /^(?!.*[\t\u200d])[\p{Cc}\p{Cf}]*$/u; // no tab, no joiner: a mark would take emoji apart

/** A token that takes no room in the text gets a mark that can be seen and pointed at. */
const markOf = (text) => (LINE_BREAKS.test(text) ? " break" : UNSEEN.test(text) ? " part" : "");

function classOf(token, index, colour, mark) {
  const marked = mark?.(index, token);
  const tint = colour === "surprise" ? `s${surprise(token.logprob)}` : colour === "turn" ? `t${index % 5}` : "";
  return `tok ${tint}${markOf(token.text)}${token.picked ? " picked" : ""}${marked ? ` ${marked}` : ""}`;
}

/** Keeps the spans of `host` equal to the log; draws at most once a frame. */
function drawTokens(host, log, look, spans) {
  let drawn = 0, version = log.version, frame = 0, block = null, inBlock = 0;
  const draw = () => {
    frame = 0;
    if (version !== log.version || drawn > log.items.length) {
      host.replaceChildren();
      spans.length = drawn = inBlock = 0;
      block = null;
      version = log.version;
    }
    while (drawn < log.items.length) {
      if (!block) {
        block = host.appendChild(document.createElement("div"));
        block.className = "tok-block";
        inBlock = 0;
      }
      const token = log.items[drawn];
      const span = document.createElement("span");
      span.dataset.i = drawn;
      span.className = classOf(token, drawn, look.current.colour, look.current.mark);
      span.textContent = token.text;
      spans[drawn++] = block.appendChild(span);
      if (++inBlock >= BLOCK_TOKENS && token.text.endsWith("\n")) block = null;
    }
  };
  draw();
  const stop = log.subscribe(() => { frame ||= requestAnimationFrame(draw); });
  return { draw, stop: () => { stop(); cancelAnimationFrame(frame); } };
}

/** Tokens as bars: [{text, note, share (0..1), value, chosen, title, onClick}]; buttons where they can be clicked. */
export function Bars({ label, rows }) {
  return html`<ol class="bars" aria-label=${label}>${rows.map(({ text, note, share, value, chosen = true, title, onClick }) => html`<li>
    <${onClick ? "button" : "span"} type=${onClick && "button"} class=${`bar ${chosen ? "chosen" : ""}`} title=${title} onClick=${onClick}>
      <span class="bar-fill" style=${{ width: `${Math.max(share * 100, 0.5)}%` }}></span>
      <span class="bar-text">${visible(text)}${note}</span><span class="bar-value">${value}</span><//></li>`)}</ol>`;
}

/** A ref for a card that stands below `place`, a box on the screen, or above it where there is no room. */
export function useBeside(place) {
  const node = useRef();
  useLayoutEffect(() => {
    const card = node.current, box = card.getBoundingClientRect();
    const left = Math.min(Math.max(8, place.left), innerWidth - box.width - 8);
    const below = place.bottom + 6 + box.height <= innerHeight || place.top < box.height + 12;
    card.style.left = `${left}px`;
    card.style.top = `${below ? Math.max(8, Math.min(place.bottom + 6, innerHeight - box.height - 8)) : place.top - box.height - 6}px`;
  });
  return node;
}

function TokenCard({ token, index, model, place, onPick, onEnter, onLeave, note, tools }) {
  const node = useBeside(place);
  const drawn = token.top?.length > 0 && chances(token.top, token.by);
  const row = (entry, i) => {
    const p = Math.exp(entry.logprob), chosen = isSame(token, entry), chance = drawn?.[i];
    return { text: tokenName(entry.text), share: p, value: percent(p) + (chance === undefined ? "" : ` → ${percent(chance)}`), chosen,
      ...(onPick && { onClick: () => onPick(index, entry), title: chosen ? "This one was taken" : "Go on from here with this token" }) };
  };
  const known = token.logprob !== null && token.logprob !== undefined;
  return html`<div class="token-card" role="group" aria-label=${`Token ${nameOf(token)}`} ref=${node} onPointerEnter=${onEnter}
    onPointerLeave=${onLeave}>
    <p class="token-card-head"><code>${nameOf(token)}</code><span
      class="stats">${token.id === null || token.id === undefined ? "" : `id ${token.id}`}</span></p>
    ${known && html`<p class="stats">probability ${percent(Math.exp(token.logprob))} · surprise${" "}
      ${(-token.logprob / Math.LN2).toFixed(1)} bits · <span class="token-rank">rank ${rankOf(token, model)}</span></p>`}
    ${known && html`<p class="hint">The model's own, before temperature and the other settings${drawn ? " → the chance to be drawn with them" : ""}.</p>`}
    ${note?.(index, token)}
    ${token.top?.length > 0 && html`<${Bars} rows=${token.top.map(row)} />`}
    ${onPick && token.top?.length > 0 && html`<p class="hint">Click another token to go on from here with it.</p>`}
    ${tools?.(index, token)}
  </div>`;
}

/**
 * The text of `log`, of tokens of `model`. colour: "surprise", "turn" (neighbours differ) or "none". onPick(index, alternative): alternatives become buttons.
 * mark(index, token): a further class, or nothing; note(index, token): more lines of the card;
 * tools(index, token): what stands below its alternatives. redraw: spans are made anew when it changes.
 */
export function TokenText({ log, label, model, colour = "surprise", onPick, mark, note, tools, redraw, id, running = false }) {
  const root = useRef(), host = useRef(), look = useRef({}), drawing = useRef(null), hide = useRef(0), spans = useRef([]), current = useRef(null);
  const [open, setOpen] = useState(null); // {index, place}
  look.current = { colour, mark };
  useEffect(() => {
    host.current.replaceChildren();
    setOpen(null);
    spans.current.length = 0;
    drawing.current = drawTokens(host.current, log, look, spans.current);
    return drawing.current.stop;
  }, [log, colour, redraw]);
  useLayoutEffect(() => { if (!running) drawing.current?.draw(); }, [running]); // whoever sees that it has ended sees all of it
  useEffect(() => log.subscribe(() => setOpen((now) => (now && now.index >= log.items.length ? null : now))), [log]);
  const span = (index) => spans.current[index];
  const show = (index) => {
    clearTimeout(hide.current);
    const node = span(index);
    if (!node || log.items[index].id === null) return; // a text of which nothing more is known
    const box = node.getClientRects()[0] ?? node.getBoundingClientRect();
    setOpen({ index, place: { left: box.left, top: box.top, bottom: box.bottom } });
  };
  const leave = () => { clearTimeout(hide.current); hide.current = setTimeout(() => setOpen(null), 180); };
  const onOver = (event) => { if (event.target.dataset.i !== undefined) show(Number(event.target.dataset.i)); };
  const onKey = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape" && open) {
      event.stopPropagation();
      setOpen(null);
      host.current.focus();
    } else if (event.key === "ArrowDown" && open) {
      event.preventDefault();
      root.current.querySelector(".token-card button")?.focus();
    } else if (step && log.items.length > 0 && event.target === host.current) {
      event.preventDefault();
      const next = Math.min(Math.max((open?.index ?? -1) + step, 0), log.items.length - 1);
      span(next)?.scrollIntoView({ block: "nearest" });
      show(next);
    }
  };
  useEffect(() => {
    current.current?.classList.remove("current");
    current.current = open ? span(open.index) : null;
    current.current?.classList.add("current");
  }, [open]);
  useEffect(() => {
    if (!open) return undefined;
    let frame = 0;
    const follow = () => { // the card stays at its token, as long as that is seen
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        const box = span(open.index)?.getBoundingClientRect();
        if (box && box.bottom > 0 && box.top < innerHeight) show(open.index);
        else setOpen(null);
      });
    };
    const beside = (event) => { if (!root.current.contains(event.target)) setOpen(null); }; // a finger does not leave, it taps somewhere else
    addEventListener("scroll", follow, { passive: true, capture: true });
    addEventListener("pointerdown", beside);
    return () => {
      removeEventListener("scroll", follow, { capture: true });
      removeEventListener("pointerdown", beside);
      cancelAnimationFrame(frame);
    };
  }, [open?.index]);
  useEffect(() => () => clearTimeout(hide.current), []);
  const token = open && log.items[open.index];
  return html`<div class="token-text" ref=${root} onKeyDown=${onKey}>
    <div id=${id} ref=${host} class=${`text ${running ? "running" : ""}`} tabindex="0" role="group"
      aria-label=${`${label}. Arrow keys go from token to token.`}
      onPointerOver=${onOver} onPointerLeave=${leave} onClick=${onOver}></div>
    ${token && html`<${TokenCard} token=${token} index=${open.index} model=${model} place=${open.place} note=${note} tools=${tools}
      onPick=${onPick && ((...picked) => { setOpen(null); onPick(...picked); })} onEnter=${() => clearTimeout(hide.current)} onLeave=${leave} />`}
    <p class="sr" role="status">${token && token.logprob !== null && token.logprob !== undefined
      ? `${nameOf(token)}: probability ${percent(Math.exp(token.logprob))}, rank ${rankOf(token, model)}` : ""}</p>
  </div>`;
}
