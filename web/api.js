// SPDX-License-Identifier: MIT
// Talks to this server and to nobody else. Knows HTTP, server-sent events and what errors mean; knows nothing of the page.

const KEY = "couplet.key"; // sessionStorage: a key is forgotten with its tab

export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body?.error?.message ?? `the server answered ${status}`);
    Object.assign(this, { status, code: body?.error?.code ?? null, param: body?.error?.param ?? null, retryAfter });
  }
}

export const setKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));
export const hasKey = () => sessionStorage.getItem(KEY) !== null;

async function send(path, body, signal) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const response = await fetch(path, {
    method: body === undefined ? "GET" : "POST", headers, signal, cache: "no-store",
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response;
  const error = await response.json().catch(() => null);
  throw new ApiError(response.status, error, response.headers.get("Retry-After"));
}

export const call = async (path, body, signal) => (await send(path, body, signal)).json();

/** The events of a stream, parsed, without the closing [DONE]. An error inside the stream is thrown. */
export async function* stream(path, body, signal) {
  const response = await send(path, body, signal);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ApiError(response.status, { error: { message: "the connection ended in the middle of the answer" } });
    held += value;
    const blocks = held.split(/\r?\n\r?\n/);
    held = blocks.pop();
    for (const block of blocks) {
      const data = block.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart()).join("\n");
      if (data === "") continue; // a comment: the server's sign of life during a long prompt
      if (data === "[DONE]") return;
      const event = JSON.parse(data);
      if (event.error) throw new ApiError(response.status, event);
      yield event;
    }
  }
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
