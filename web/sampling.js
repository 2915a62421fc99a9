// SPDX-License-Identifier: MIT
// The sampling controls: one table describes each field, builds its control and puts it into a request.

const FIELDS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, initial: 0.7, slider: true,
    help: "0 always takes the likeliest token. Higher spreads the choice." },
  { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01, initial: 1, neutral: 1, slider: true,
    help: "Only the likeliest tokens that together reach this probability. 1 is off." },
  { name: "top_k", label: "Top k", min: 0, max: 1000, step: 1, initial: 0, neutral: 0,
    help: "Only the k likeliest tokens. 0 is off." },
  { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01, initial: 0, neutral: 0, slider: true,
    help: "Drops tokens less likely than this share of the likeliest one. 0 is off." },
  { name: "repetition_penalty", label: "Repetition penalty", min: 0.5, max: 2, step: 0.05, initial: 1, neutral: 1, slider: true,
    help: "Above 1 makes tokens that already stand in the text less likely. 1 is off." },
  { name: "max_tokens", label: "Max tokens", min: 1, max: 100000, step: 1, initial: 128,
    help: "Where the answer is cut at the latest." },
  { name: "seed", label: "Seed", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1, initial: "", placeholder: "random",
    help: "The same seed, settings and prompt give the same answer." },
  { name: "stop", label: "Stop at", initial: "", lines: true, placeholder: "one text a line",
    help: "The answer ends before any of these texts. \\n stands for a line break." },
];

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

export class Sampling {
  /** Builds the controls below `host`, filled from `saved`; calls `changed` after every edit. */
  constructor(host, saved, changed) {
    this.values = Object.fromEntries(FIELDS.map((f) => [f.name, saved?.[f.name] ?? f.initial]));
    this.changed = changed;
    this.inputs = {};
    host.append(...FIELDS.map((field) => this.build(field)));
    this.show();
  }

  build(field) {
    const help = element("p", { className: "hint", id: `sampling-${field.name}-help`, textContent: field.help });
    const input = field.lines
      ? element("textarea", { id: `sampling-${field.name}`, rows: 2, placeholder: field.placeholder, spellcheck: false })
      : element("input", { id: `sampling-${field.name}`, type: "number", min: field.min, max: field.max, step: field.step, placeholder: field.placeholder ?? "" });
    input.setAttribute("aria-describedby", help.id);
    const label = element("label", { htmlFor: `sampling-${field.name}`, textContent: field.label });
    const head = element("div", { className: "field-head" }, label, ...(field.lines ? [] : [input]));
    const parts = [head, ...(field.lines ? [input] : [])];
    const controls = [input];
    if (field.slider) {
      const slider = element("input", { type: "range", min: field.min, max: field.max, step: field.step });
      slider.setAttribute("aria-label", `${field.label}, slider`);
      parts.push(slider);
      controls.push(slider);
    }
    for (const control of controls) {
      control.addEventListener("input", () => {
        this.values[field.name] = control.value;
        this.show(control);
        this.changed();
      });
    }
    this.inputs[field.name] = controls;
    return element("div", { className: "field" }, ...parts, help);
  }

  /** Brings every control to its value; the one being typed into is left alone. */
  show(except) {
    for (const field of FIELDS) {
      for (const control of this.inputs[field.name]) {
        if (control !== except) control.value = this.values[field.name];
      }
    }
  }

  reset() {
    for (const field of FIELDS) this.values[field.name] = field.initial;
    this.show();
    this.changed();
  }

  /** The label of the first field whose value the browser refuses, or null. */
  invalid() {
    const field = FIELDS.find((f) => !this.inputs[f.name][0].validity.valid);
    return field ? `${field.label}: ${this.inputs[field.name][0].validationMessage}` : null;
  }

  /** The fields of a request: what is empty or neutral is left out, so the server's own defaults hold. */
  request() {
    const out = {};
    for (const field of FIELDS) {
      const text = String(this.values[field.name]);
      if (field.lines) {
        const stops = text.split("\n").filter((line) => line !== "").map((line) => line.replaceAll("\\n", "\n"));
        if (stops.length) out[field.name] = stops;
      } else if (text.trim() !== "" && Number(text) !== field.neutral) {
        out[field.name] = Number(text);
      }
    }
    return out;
  }
}
