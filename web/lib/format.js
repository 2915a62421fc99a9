// SPDX-License-Identifier: MIT
// Numbers for people.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const count = (n) => whole.format(n);
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

/** Bytes in hexadecimal, two digits each. */
export const hex = (bytes, between = "") => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(between);

/** A probability: 97%, 3.1%, 0.04%, <0.01%. */
export function percent(p) {
  const x = p * 100;
  if (x >= 99.95 || x === 0) return `${Math.round(x)}%`;
  if (x >= 10) return `${x.toFixed(0)}%`;
  if (x >= 0.095) return `${x.toFixed(1)}%`;
  return x >= 0.0095 ? `${x.toFixed(2)}%` : "<0.01%";
}

/** 3 significant digits, no exponent for what people meet. */
export function number(x, digits = 3) {
  if (x === null || x === undefined || Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  if (x !== 0 && (Math.abs(x) < 1e-4 || Math.abs(x) >= 1e7)) return x.toExponential(digits - 1);
  return String(Number(x.toPrecision(digits)));
}

export function bytes(n) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${i && n < 10 ? n.toFixed(1) : Math.round(n)} ${units[i]}`;
}

export function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.round((seconds % 3600) / 60)} min`;
}

/** Unix seconds -> "3 min ago" or a date. */
export function ago(unixSeconds, now = Date.now() / 1000) {
  const s = now - unixSeconds;
  if (s < 5) return "just now";
  if (s < 86400) return `${duration(s).replace(/ \d+ (s|min)$/, "")} ago`;
  return new Date(unixSeconds * 1000).toLocaleDateString();
}

/** A token's text so that its blanks and control characters can be seen: "␣the", "⏎", "␌". */
export function visible(text) {
  const picture = (c) => String.fromCharCode(c === "\x7f" ? 0x2421 : 0x2400 + c.charCodeAt(0));
  return text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replace(/[\x00-\x1f\x7f]/g, picture).replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length)) || "∅";
}

/** What a token is called: one that is no whole character by its bytes, as /v1/completions names them. */
export const tokenName = (raw) => (raw.startsWith("bytes:") ? raw.slice(6) : raw);

/** "village · step 40 (eXlJKoss)" of "ft:BASE:local:village:eXlJKoss:ckpt-step-40"; other models' names as they are. */
export function modelLabel(id) {
  const [, suffix, job, step, live] = /^ft:.*:local:([^:]*):([^:]+?)(?::ckpt-step-(\d+)|(:live))?$/.exec(id) ?? [];
  return job ? `${suffix || "fine-tuned"}${step ? ` · step ${count(step)}` : live ? " · newest weights" : ""} (${job})` : id;
}
