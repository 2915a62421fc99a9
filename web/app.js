// SPDX-License-Identifier: MIT
// The playground: wires the page to the server's public interface. All state is one object in localStorage; the page holds
// no connection unless an answer is being written.

import { call, explain, setKey, stream } from "./api.js";
import { Sampling } from "./sampling.js";

const $ = (id) => document.getElementById(id);
const STORE = "couplet.v1";
const EXAMPLES = {
  "Story": "Once upon a time, in a library that nobody had visited for a hundred years,",
  "Facts": "Water boils at a lower temperature on high mountains because",
  "List": "Five good habits for people who write programs:\n1.",
};
const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
const FINISH = { stop: "ended by itself", length: "cut at max tokens" };

function load() {
  try {
    return JSON.parse(localStorage.getItem(STORE)) ?? {};
  } catch {
    return {};
  }
}
const state = { model: null, prompt: "", system: "", messages: [], theme: "auto", sampling: {}, ...load() };
function save() {
  try {
    localStorage.setItem(STORE, JSON.stringify({ ...state, sampling: sampling.values }));
  } catch { /* a full or forbidden store costs the memory of the page, nothing else */ }
}

let models = [];
let running = null; // AbortController of the answer being written
const sampling = new Sampling($("controls"), state.sampling, () => { save(); showCount(); });

// ---------------------------------------------------------------- notices

let retry = null;
function notice(text, { again = null, wantKey = false } = {}) {
  $("notice").hidden = !text;
  $("notice-text").textContent = text;
  $("key-form").hidden = !wantKey;
  $("notice-retry").hidden = !again || wantKey;
  retry = again;
  if (wantKey) $("key").focus();
}
function fail(error, again) {
  if (error.name === "AbortError") return;
  const passing = error.status === undefined || error.status === 429 || error.status >= 500;
  notice(explain(error), { again: passing || error.status === 401 ? again : null, wantKey: error.status === 401 });
}
$("notice-close").addEventListener("click", () => notice(""));
$("notice-retry").addEventListener("click", () => { notice(""); retry?.(); });
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  setKey($("key").value.trim());
  $("key").value = "";
  const again = retry ?? listModels;
  notice("");
  again();
});

// ---------------------------------------------------------------- pages, theme, models

function showPage() {
  const page = location.hash === "#chat" ? "chat" : "complete";
  const empty = models.length === 0 && !$("model").disabled;
  $("empty").hidden = !empty;
  $("side").hidden = empty;
  for (const name of ["complete", "chat"]) $(name).hidden = empty || name !== page;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = page === "chat" ? "Chat · couplet" : "Complete · couplet";
}
window.addEventListener("hashchange", showPage);

function showTheme() {
  document.documentElement.dataset.theme = state.theme;
  const [sign, name] = THEMES[state.theme] ?? THEMES.auto;
  $("theme").textContent = sign;
  $("theme").setAttribute("aria-label", `Colours: ${name}`);
  $("theme").title = `Colours: ${name}`;
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  state.theme = names[(names.indexOf(state.theme) + 1) % names.length];
  showTheme();
  save();
});

async function listModels() {
  try {
    models = (await call("v1/models")).data;
  } catch (error) {
    fail(error, listModels);
    if (error.status === 503) setTimeout(listModels, 2000); // the models are still being read
    return;
  }
  notice("");
  const known = models.some((model) => model.id === state.model);
  if (!known) state.model = models[0]?.id ?? null;
  $("model").replaceChildren(...(models.length ? models.map((model) => new Option(model.id, model.id)) : [new Option("no model", "")]));
  $("model").value = state.model ?? "";
  $("model").disabled = false;
  for (const id of ["run", "send"]) $(id).disabled = models.length === 0;
  showPage();
  countPrompt();
}
$("model").addEventListener("change", () => {
  state.model = $("model").value;
  save();
  countPrompt();
});

// ---------------------------------------------------------------- token count of the prompt

let counted = null; // {count, max_model_len} of the prompt as it stands, or null
let counting = null;
let countTimer = 0;

function showCount() {
  const node = $("prompt-count");
  node.classList.remove("over");
  if (!counted) {
    node.textContent = "";
    return;
  }
  const { count, max_model_len: room } = counted;
  const wanted = Number(sampling.request().max_tokens ?? 16);
  const over = room !== undefined && count + wanted > room;
  node.textContent = `${count} ${count === 1 ? "token" : "tokens"}` + (room === undefined ? "" : ` of ${room}`);
  if (over) node.textContent += count >= room ? ", too long" : `, no room for ${wanted} more`;
  node.classList.toggle("over", over);
}

async function countPrompt() {
  counting?.abort();
  counted = null;
  if (!state.model || state.prompt === "") {
    showCount();
    return;
  }
  counting = new AbortController();
  try {
    counted = await call("tokenize", { model: state.model, prompt: state.prompt }, counting.signal);
    showCount();
  } catch (error) {
    if (error.name !== "AbortError") showCount(); // only a count: running the prompt will say what is wrong
  }
}
$("prompt").addEventListener("input", () => {
  state.prompt = $("prompt").value;
  save();
  clearTimeout(countTimer);
  countTimer = setTimeout(countPrompt, 300);
});

// ---------------------------------------------------------------- one answer

/** Streams one answer: `text(piece)` for each piece; resolves to what the statistics line says. */
async function answer(path, body, text) {
  running = new AbortController();
  const began = performance.now();
  let first = null, last = began, pieces = 0, finish = null, usage = null, stopped = false;
  try {
    for await (const event of stream(path, { ...body, stream: true, stream_options: { include_usage: true } }, running.signal)) {
      usage = event.usage ?? usage;
      const choice = event.choices[0];
      const piece = choice?.text ?? choice?.delta?.content ?? "";
      finish = choice?.finish_reason ?? finish;
      if (piece !== "") {
        last = performance.now();
        first ??= last;
        pieces++;
        text(piece);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    stopped = true;
  } finally {
    running = null;
  }
  const count = usage?.completion_tokens ?? pieces;
  const parts = [];
  if (usage) parts.push(`prompt ${usage.prompt_tokens}`);
  parts.push(`answer ${count} ${count === 1 ? "token" : "tokens"}`);
  if (first !== null) parts.push(`first after ${Math.round(first - began)} ms`);
  if (count > 1 && last > first) parts.push(`${(((count - 1) * 1000) / (last - first)).toFixed(1)} tokens/s`);
  parts.push(stopped ? "stopped" : FINISH[finish] ?? finish ?? "");
  return parts.filter(Boolean).join(" · ");
}

function setRunning(on) {
  for (const id of ["run", "send", "append", "chat-new", "model"]) $(id).disabled = on;
  for (const id of ["stop", "chat-stop"]) $(id).hidden = !on;
  $("answer").classList.toggle("running", on);
  $("messages").lastElementChild?.classList.toggle("running", on);
}

function ready() {
  const wrong = sampling.invalid();
  if (wrong) {
    $("settings").open = true;
    notice(`Sampling: ${wrong}`);
  }
  return !running && !wrong && Boolean(state.model);
}

async function complete() {
  if (!ready()) return;
  notice("");
  $("answer-card").hidden = false;
  $("answer").textContent = "";
  $("stats").textContent = "";
  setRunning(true);
  try {
    const body = { model: state.model, prompt: state.prompt, ...sampling.request() };
    $("stats").textContent = await answer("v1/completions", body, (piece) => $("answer").append(piece));
  } catch (error) {
    if ($("answer").textContent === "") $("answer-card").hidden = true;
    fail(error, complete);
  }
  setRunning(false);
}

function appendAnswer() {
  state.prompt = $("prompt").value += $("answer").textContent;
  $("answer-card").hidden = true;
  save();
  countPrompt();
  $("prompt").focus();
  $("prompt").scrollTop = $("prompt").scrollHeight;
}

async function copyAnswer() {
  try {
    await navigator.clipboard.writeText($("answer").textContent);
    $("copy").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("answer"));
    $("copy").textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => { $("copy").textContent = "Copy"; }, 1500);
}

// ---------------------------------------------------------------- chat

function addMessage({ role, content }) {
  const item = document.createElement("li");
  item.className = role;
  const who = Object.assign(document.createElement("span"), { className: "who", textContent: role === "user" ? "You" : state.model });
  const text = Object.assign(document.createElement("div"), { className: "text", textContent: content });
  item.append(who, text);
  $("messages").append(item);
  return text;
}

function showChat() {
  $("messages").replaceChildren();
  state.messages.forEach(addMessage);
  $("chat-hint").hidden = state.messages.length > 0;
}

async function say() {
  const content = $("say").value.trim();
  if (content === "" || !ready()) return;
  notice("");
  state.messages.push({ role: "user", content });
  addMessage(state.messages.at(-1));
  $("say").value = "";
  await reply();
}

async function reply() {
  $("chat-hint").hidden = true;
  $("chat-stats").textContent = "";
  const system = state.system.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...state.messages];
  const text = addMessage({ role: "assistant", content: "" });
  setRunning(true);
  text.scrollIntoView({ block: "nearest" });
  try {
    $("chat-stats").textContent = await answer("v1/chat/completions", { model: state.model, messages, ...sampling.request() }, (piece) => text.append(piece));
    text.parentElement.classList.remove("running");
    state.messages.push({ role: "assistant", content: text.textContent });
  } catch (error) {
    text.parentElement.remove();
    // The question goes back into the box, so that nothing typed is lost and the conversation stays well-formed.
    $("say").value = state.messages.pop().content;
    showChat();
    fail(error, say);
  }
  setRunning(false);
  save();
  $("say").focus();
}

function newChat() {
  state.messages = [];
  $("chat-stats").textContent = "";
  showChat();
  save();
  $("say").focus();
}

// ---------------------------------------------------------------- start

const stop = () => running?.abort();
const act = () => ($("chat").hidden ? complete() : say());
$("run").addEventListener("click", complete);
$("send").addEventListener("click", say);
$("append").addEventListener("click", appendAnswer);
$("copy").addEventListener("click", copyAnswer);
$("reset").addEventListener("click", () => sampling.reset());
$("chat-new").addEventListener("click", newChat);
for (const id of ["stop", "chat-stop"]) $(id).addEventListener("click", stop);
$("system").addEventListener("input", () => { state.system = $("system").value; save(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    act();
  }
});
for (const [name, text] of Object.entries(EXAMPLES)) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: name, title: text });
  button.addEventListener("click", () => {
    $("prompt").value = text;
    $("prompt").dispatchEvent(new Event("input"));
    $("prompt").focus();
  });
  $("examples").append(button);
}
$("settings").open = matchMedia("(min-width: 861px)").matches;
$("prompt").value = state.prompt;
$("system").value = state.system;
showTheme();
showChat();
showPage();
listModels();
