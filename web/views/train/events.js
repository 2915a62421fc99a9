// SPDX-License-Identifier: MIT
// What happened in a job, in words, newest first. Steps and samples have their own places.

import { html, useState } from "../../lib/html.js";
import { Card } from "../../lib/ui.js";

const MOST = 8;
const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });

export function Events({ log }) {
  const [all, setAll] = useState(false);
  const newest = [...log.messages].reverse();
  if (newest.length === 0) return null;
  const shown = all ? newest : newest.slice(0, MOST);
  return html`<${Card} title="Events" id="events">
    <ol class="job-events">${shown.map((event) => html`<li key=${event.id} class=${event.level === "info" ? "" : "job-wrong"}>
      <time class="stats" datetime=${new Date(event.created_at * 1000).toISOString()}>${clock(event.created_at)}</time><span>${event.message}</span></li>`)}</ol>
    ${newest.length > MOST && html`<button type="button" class="quiet"
      onClick=${() => setAll(!all)}>${all ? "Show fewer" : `Show all ${newest.length}`}</button>`}
  <//>`;
}
