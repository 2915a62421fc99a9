// SPDX-License-Identifier: MIT
// What a head does, in words that a learner knows: the share of attention that goes, on average over the tokens, to one simple place.

/** [name, label, what it means], in the order in which they are shown. */
export const PATTERNS = [
  ["previous", "previous token", "looks one token back: the model knows what came just before"],
  ["first", "first token", "looks at the first token: mostly a resting place for a head that has nothing to say"],
  ["self", "itself", "looks at the token itself"],
  ["again", "what followed last time",
    "finds an earlier place with the same token and looks at what followed there: how models repeat and copy (an induction head)"],
];
const CLEAR = 0.5; // a head is said to do what more than half of its attention does

/** For every token the places that followed an earlier one like it. */
function followers(ids) {
  return ids.map((id, q) => {
    const places = [];
    for (let j = 0; j + 1 < q; j++) if (ids[j] === id) places.push(j + 1);
    return places;
  });
}

/** The shares of one map of n x n bytes at data[at]: {previous, first, self, again}, each 0..1 or null where the text cannot tell. */
function sharesOf(data, at, n, after) {
  const sums = { previous: 0, first: 0, self: 0, again: 0 };
  let repeated = 0;
  for (let q = 2; q < n; q++) { // before, the places are the same
    const row = at + q * n;
    sums.previous += data[row + q - 1];
    sums.first += data[row];
    sums.self += data[row + q];
    if (after[q].length === 0) continue;
    repeated++;
    for (const k of after[q]) sums.again += data[row + k];
  }
  const share = (sum, of) => (of > 0 ? sum / (255 * of) : null);
  const of = n - 2, again = repeated > 1 ? share(sums.again, repeated) : null;
  return { previous: share(sums.previous, of), first: share(sums.first, of), self: share(sums.self, of), again };
}

/** For every head, layer after layer: {shares, name} where name is the pattern that stands out, or null. */
export function patternsOf({ shape: [layers, heads, n], data }, ids) {
  const after = followers(ids.slice(0, n));
  return Array.from({ length: layers * heads }, (_, i) => {
    const shares = sharesOf(data, i * n * n, n, after);
    let name = null;
    for (const [one] of PATTERNS) if (shares[one] !== null && shares[one] > (name ? shares[name] : CLEAR)) name = one;
    return { shares, name };
  });
}
