"""A plan of eight jobs over a file of features, and how it is run."""

import json

import numpy as np

PLAN = """
datasets = ["PACS"]
algorithms = ["ERM", "Fishr"]
draws = 1
trials = 1
[settings]
steps = 10
evaluate_every = 4
hparams = {batch_size = 8}
features.PACS = "features.h5"
"""
WORK = ("--workers", 1, "--device", "cpu")
ENVIRONMENTS = "ACPS"


def make_world(home):
    from fishr.data.caches import Section
    from fishr.data.caches.feature_cache import write_features

    generator, rows = np.random.default_rng(0), 30
    labels = np.arange(rows) % 3
    features = [generator.normal(size=(rows, 5)) + labels[:, None] for _ in ENVIRONMENTS]

    def compute(domain, start, stop):
        logits = np.zeros((stop - start, 3))
        ids = np.arange(start, stop)
        return {"features": features[domain][start:stop], "labels": labels[start:stop], "logits": logits, "ids": ids}

    head = {"text": "", "outputs": 3, "parameters": {}}
    sections = [Section(name, "training", rows) for name in ENVIRONMENTS]
    (home / "data").mkdir()
    write_features(home / "data" / "features.h5", {"dtype": "float32"}, head, sections, compute, part_rows=rows)
    (home / "plan.toml").write_text(PLAN)
    return home


def results(folder):
    found = {}
    for path in sorted(folder.glob("jobs/*/results.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.parent.name] = [
            {k: v for k, v in line.items() if k not in ("step_time", "mem_gb")} for line in lines
        ]
    return found
