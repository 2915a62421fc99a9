// SPDX-License-Identifier: MIT
// Talks to this server and to nobody else. Knows HTTP, server-sent events, uploads and what errors mean; knows nothing of the page.

const KEY = "couplet.key"; // sessionStorage: a key is forgotten with its tab
let key = null;
try {
  key = sessionStorage.getItem(KEY);
} catch { /* a browser that keeps nothing for a page: until it is reloaded */ }

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body?.error?.message ?? `the server answered ${status}`);
    Object.assign(this, { status, code: body?.error?.code ?? null, param: body?.error?.param ?? null, retryAfter });
  }
}

export function setKey(to) {
  key = to || null;
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch { /* it is known until the page is reloaded */ }
}
export const hasKey = () => key !== null;

function headersWith(more = {}) {
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

async function send(path, { method, body, signal, headers }) {
  const form = body instanceof FormData;
  const response = await fetch(path, {
    method: method ?? (body === undefined ? "GET" : "POST"), signal, cache: "no-store",
    headers: headersWith({ ...(body === undefined || form ? {} : { "Content-Type": "application/json" }), ...headers }),
    body: body === undefined || form ? body : JSON.stringify(body),
  });
  if (response.ok) return response;
  const error = await response.json().catch(() => null);
  throw new ApiError(response.status, error, response.headers.get("Retry-After"));
}

/** GET without a body, POST with one; the answer's JSON. */
export const call = async (path, body, signal) => (await send(path, { body, signal })).json();
/** Any method: "PUT", "DELETE", ... */
export const request = async (method, path, body, signal, headers) => (await send(path, { method, body, signal, headers })).json();
export const text = async (path, signal) => (await send(path, { signal })).text();

/** Saves a Blob as a file. */
function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Saves what is known of an answer as a file. */
export function saveJson(members, name) {
  const file = { made_by: "couplet", at: new Date().toISOString(), ...members };
  save(new Blob([JSON.stringify(file, null, 1)], { type: "application/json" }), name);
}

/** Saves an answer of the server as a file. A link would not carry the key. */
export const download = async (path, name) => save(await (await send(path, {})).blob(), name);

/** Uploads a File or Blob for fine-tuning; `progress(share)` while it goes. Resolves to the file object of the API. */
export function upload(file, name, progress = () => {}, signal) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("purpose", "fine-tune");
    form.append("file", file, name);
    const xhr = new XMLHttpRequest(); // fetch cannot say how much has gone
    xhr.open("POST", "/v1/files");
    for (const [header, value] of Object.entries(headersWith())) xhr.setRequestHeader(header, value);
    xhr.responseType = "json";
    xhr.upload.onprogress = (event) => { if (event.lengthComputable) progress(event.loaded / event.total); };
    xhr.onload = () => (xhr.status < 300 ? resolve(xhr.response) : reject(new ApiError(xhr.status, xhr.response, xhr.getResponseHeader("Retry-After"))));
    xhr.onerror = () => reject(new TypeError("the upload was cut off"));
    xhr.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal?.addEventListener("abort", () => xhr.abort());
    xhr.send(form);
  });
}

/** The events of a stream, parsed, without the closing [DONE]: {data, type, id}, after the one whose id is `after`. Without a body it is a GET. An error inside is thrown. */
export async function* events(path, body, signal, after = null) {
  const response = await send(path, { body, signal, headers: after ? { "Last-Event-ID": after } : {} });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(response.status, { error: { message: "the connection ended in the middle of the answer" } });
    held += value;
    const blocks = held.split(/\r?\n\r?\n/);
    held = blocks.pop();
    for (const block of blocks) {
      const fields = { data: "", event: "message", id: null };
      for (const line of block.split(/\r?\n/)) {
        const [, name, rest] = /^(\w+): ?(.*)$/s.exec(line) ?? [];
        if (name === "data") fields.data += (fields.data ? "\n" : "") + rest;
        else if (name) fields[name] = rest;
      }
      if (fields.data === "") continue; // a comment: the server's sign of life during a long prompt
      if (fields.data === "[DONE]") return;
      const data = JSON.parse(fields.data);
      if (data.error && !data.object) throw new ApiError(response.status, data);
      yield { data, type: fields.event, id: fields.id };
    }
  }
}

/** The chunks of a streamed completion. */
export async function* stream(path, body, signal) {
  for await (const event of events(path, body, signal)) yield event.data;
}

/** What went wrong, in words that say what to do. */
export function explain(error) {
  if (!(error instanceof ApiError)) {
    return error instanceof TypeError
      ? "The server does not answer. Is couplet still running? Start it again with ./start, then try again."
      : String(error.message ?? error);
  }
  switch (error.status) {
    case 401: return hasKey() ? "The server does not know this API key. Check it, or ask for a new one." : "This server wants an API key.";
    case 403: return `This key may not do that: ${error.message}`;
    case 404: return error.code === "model_not_found" ? "This model is no longer served. Choose another one at the top." : error.message;
    case 413: return "The text is too large for one request. Shorten it.";
    case 429: return `The server is busy; its queue is full. Try again in ${error.retryAfter ?? "a few"} seconds.`;
    case 503: return `The server is not ready: ${error.message}. Try again in a moment.`;
    default: break;
  }
  if (error.code === "context_length_exceeded") return `${error.message} Shorten the prompt or lower Max tokens.`;
  if (error.code === "no_chat_template") return "This model has no chat template: it only goes on with a text. Use Complete instead.";
  return error.param ? `${error.message} (${error.param})` : error.message;
}
