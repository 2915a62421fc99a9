# SPDX-License-Identifier: MIT
"""attention_vectors.txt from seed_vectors.json: the worked attention examples of Sangameeee/LLM-from-scratch's attention_mechanism.ipynb,
recomputed with torch 2.15 ('expected', float32) beside what the notebook stores ('printed', four decimals).

    python make_attention_vectors.py seed_vectors.json > attention_vectors.txt

One array a line: example, array, rows, columns, numbers.
"""
import json
import sys


def flat(v):
    return [v] if not isinstance(v, list) else [x for item in v for x in flat(item)]


with open(sys.argv[1]) as f:
    examples = json.load(f)["examples"]
for e in examples:
    arrays = {**e["inputs"], "expected": e["expected"], "printed": e["printed"]}
    for key, v in arrays.items():
        if v is None:
            continue
        numbers, row = flat(v), v
        while isinstance(row, list) and isinstance(row[0], list):
            row = row[0]
        columns = len(row) if isinstance(row, list) else 1
        text = " ".join("%.9g" % float(x) for x in numbers)
        print(e["name"], key, len(numbers) // columns, columns, text)
