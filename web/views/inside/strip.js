// SPDX-License-Identifier: MIT
// The text as a line of tokens, one of which is chosen: by click or arrow keys. Tokens can be shaded, 0..1 each.

import { html, useEffect, useId, useRef } from "../../lib/html.js";
import { visible } from "../../lib/format.js";

/** Line breaks stay, as do blanks; a token without any text can still be clicked. */
const shown = (text) => (text === "" ? "∅" : text.replaceAll("\n", "⏎\n").replaceAll("\t", "⇥"));

export function Strip({ texts, chosen, onChoose, label, shade, title }) {
  const id = useId(), host = useRef();
  const onKey = (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    onChoose(Math.min(Math.max(chosen + step, 0), texts.length - 1));
  };
  useEffect(() => {
    if (host.current === document.activeElement) host.current.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  const tint = (i) => ({ backgroundColor: `color-mix(in srgb, var(--accent) ${Math.round(shade(i) * 40)}%, transparent)` });
  return html`<div class="inside-strip" role="listbox" aria-orientation="horizontal" tabindex="0" ref=${host} aria-label=${label}
    aria-activedescendant=${`${id}-${chosen}`}
    onKeyDown=${onKey} onClick=${(e) => { const i = e.target.dataset.i; if (i !== undefined) onChoose(Number(i)); }}>
    ${texts.map((text, i) => html`<span id=${`${id}-${i}`} key=${i} data-i=${i} role="option" class="tok" aria-selected=${i === chosen}
      title=${title?.(i) ?? `${visible(text)}, token ${i}`} style=${shade && tint(i)}>${shown(text)}</span>`)}
  </div>`;
}
