// SPDX-License-Identifier: MIT
// State outside components: stores that several views share, stores that survive a reload, and what stands in the address.
//
// The address is #view?name=value&...: small things that a link should carry.

import { useLayoutEffect, useReducer, useRef } from "./html.js";

/** A value with listeners: get(), set(value or function of the old one), patch(members), subscribe(listener). */
export function createStore(initial) {
  let value = initial;
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      const to = typeof next === "function" ? next(value) : next;
      if (Object.is(to, value)) return;
      value = to;
      for (const listener of [...listeners]) listener(value);
    },
    patch(members) {
      this.set({ ...value, ...members });
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The store's value, or what `select` makes of it; draws again when that changes. */
export function useStore(store, select = (value) => value) {
  const [, redraw] = useReducer((n) => n + 1, 0);
  const seen = useRef();
  seen.current = select(store.get());
  useLayoutEffect(() => {
    const look = (value) => { if (!Object.is(select(value), seen.current)) redraw(); };
    look(store.get()); // what changed between drawing and now
    return store.subscribe(look);
  }, [store]);
  return seen.current;
}

// ---------------------------------------------------------------- what survives a reload
// A tab keeps what is done in it (sessionStorage), so that two of them take nothing from each other; a new one begins with what any kept last
// (localStorage). Shared stores are the same in all tabs.

const PREFIX = "couplet.";
const REST_MS = 200, CHARS_PER_MS = 500;
const unsaved = new Set(); // what saves them

/** How long what is typed shall have stood still before something is done with all of it: a megabyte is not saved, or counted, at every key. */
export const restOf = (chars) => chars / CHARS_PER_MS;

const flush = () => { for (const save of unsaved) save(); };
addEventListener("pagehide", flush);
document.addEventListener("visibilitychange", flush);

/** What was saved; null where it is unreadable or of another kind than `initial`, whose members stand in for missing ones. */
function readSaved(read, initial) {
  const kind = (x) => (Array.isArray(x) ? "list" : x === null ? "null" : typeof x === "object" ? "object" : "plain");
  const alike = ([member, now]) => (initial[member] ?? null) === null || kind(now) === kind(initial[member]); // an older page's may be another
  try {
    const saved = JSON.parse(read());
    if (saved === null || (initial !== null && (kind(saved) !== kind(initial) || typeof saved !== typeof initial))) return null;
    return kind(initial) === "object" ? { ...initial, ...Object.fromEntries(Object.entries(saved).filter(alike)) } : saved;
  } catch {
    return null; // as if nothing had been saved
  }
}

/** A store that survives a reload. */
export function persistentStore(name, initial, shared = false) {
  const key = PREFIX + name, places = shared ? ["localStorage"] : ["sessionStorage", "localStorage"];
  const from = (place) => readSaved(() => globalThis[place].getItem(key), initial);
  const store = createStore(places.reduce((found, place) => found ?? from(place), null) ?? initial);
  let timer = 0, chars = 0;
  const save = () => {
    clearTimeout(timer);
    unsaved.delete(save);
    const text = JSON.stringify(store.get());
    chars = text.length;
    for (const place of places) {
      try {
        globalThis[place].setItem(key, text);
      } catch { /* a full or forbidden place costs the memory of the page, nothing else */ }
    }
  };
  store.subscribe(() => {
    unsaved.add(save);
    clearTimeout(timer);
    timer = setTimeout(save, REST_MS + restOf(chars));
  });
  if (shared) addEventListener("storage", (event) => { if (event.key === key) store.set(readSaved(() => event.newValue, initial) ?? initial); });
  return store;
}

// ---------------------------------------------------------------- the address

function readAddress() {
  const [view, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
  return { view: view || "complete", params: Object.fromEntries(new URLSearchParams(query)) };
}

export const address = createStore(readAddress());
addEventListener("hashchange", () => address.set(readAddress()));

/** The href of a view with parameters; null and "" ones are left out. */
export function linkTo(view, params = {}) {
  const query = new URLSearchParams(Object.entries(params).filter(([, v]) => v !== null && v !== undefined && v !== "")).toString();
  return `#${view}${query ? `?${query}` : ""}`;
}

/** Goes to a view; a step that the back button takes back. */
export function go(view, params = {}) {
  location.hash = linkTo(view, params);
}

/** Changes parameters of the view that is open; null removes one. pushed: a step that the back button takes back. */
export function setParams(members, pushed) {
  const { view, params } = address.get();
  const next = { view, params: { ...params } };
  for (const [name, value] of Object.entries(members)) {
    if (value === null || value === undefined || value === "") delete next.params[name];
    else next.params[name] = String(value);
  }
  history[pushed ? "pushState" : "replaceState"](null, "", linkTo(view, next.params));
  address.set(next);
}

/** One parameter of the open view and its setter. */
export function useParam(name, initial = null, pushed = false) {
  const value = useStore(address, (a) => a.params[name] ?? initial);
  return [value, (next) => setParams({ [name]: next === initial ? null : next }, pushed)];
}
