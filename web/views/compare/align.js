// SPDX-License-Identifier: MIT
// Where two answers differ: the tokens that are no part of their longest common subsequence.

const MOST_CELLS = 4_000_000; // beyond: everything between the common ends counts as different

/** Lengths of common subsequences of every pair of tails of a and b, row by row. */
function tails(a, b) {
  const width = b.length + 1, table = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      const at = i * width + j;
      table[at] = a[i] === b[j] ? table[at + width + 1] + 1 : Math.max(table[at + width], table[at + 1]);
    }
  }
  return table;
}

/** {first: how many tokens at the beginning are equal, a: Set of places in a that differ, b: Set of those in b} of two lists of token names. */
export function differences(a, b) {
  const shorter = Math.min(a.length, b.length);
  let first = 0, end = 0;
  while (first < shorter && a[first] === b[first]) first++;
  while (end < shorter - first && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const left = a.slice(first, a.length - end), right = b.slice(first, b.length - end);
  const out = { first, a: new Set(), b: new Set() };
  const table = left.length * right.length <= MOST_CELLS ? tails(left, right) : null;
  const width = right.length + 1;
  let i = 0, j = 0;
  while (i < left.length || j < right.length) {
    if (table && i < left.length && j < right.length && left[i] === right[j]) {
      i++;
      j++;
    } else if (j >= right.length || (i < left.length && (!table || table[(i + 1) * width + j] >= table[i * width + j + 1]))) {
      out.a.add(first + i++);
    } else {
      out.b.add(first + j++);
    }
  }
  return out;
}

export const names = (log) => log.items.map((token) => token.name ?? token.text);
