"""A feature cache without fishr: h5py and NumPy alone, as docs/format.md describes it.

Make one: fishr cache features colored-digits -o features.h5. Run: python read_cache.py features.h5
"""

import sys
from hashlib import sha256

import h5py
import numpy as np

with h5py.File(sys.argv[1]) as file:
    kind, version = file.attrs["encoding-type"].decode(), file.attrs["encoding-version"]
    if (kind, version, file.attrs["complete"]) != ("fishr-features", 1, True):
        sys.exit(f"{sys.argv[1]}: a {kind} of version {version}, expected a complete fishr-features of version 1")
    print(f"key: {file['key'].asstr()[()]}")
    print(f"seed {file['provenance/seed'][()]}, weights {file['provenance/weights_sha256'].asstr()[()][:12]}")
    weight, bias = (file[f"head/parameters/{name}"][()] for name in ("weight", "bias"))

    variances = []
    for index in sorted(file["domains"], key=int):
        domain = file["domains"][index]
        # Every data set has the hash of its bytes; reading by itself checks each chunk.
        for column in domain.values():
            if sha256(column[()].tobytes()).hexdigest() != column.attrs["sha256"].decode():
                sys.exit(f"{sys.argv[1]}: {column.name} is damaged")
        name, split = domain["name"].asstr()[()], domain["split"].asstr()[()]
        features, labels = domain["features"][()].astype(np.float32), domain["labels"][()]
        logits = features @ weight.T + bias
        apart = np.abs(logits - domain["logits"][()]).max()
        # This head has a single output: class 1 where it is positive.
        right = (logits[:, 0] > 0) == labels
        print(f"{name} ({split}): {features.shape} features, accuracy {right.mean():.3f}, logits differ by {apart:.0e}")

        # The per-sample gradient of a linear head is an outer product, so its variance needs no gradient.
        delta = 1 / (1 + np.exp(-logits.astype(float))) - labels[:, None]
        mean = delta.T @ features / len(labels)
        variances.append((delta**2).T @ features.astype(float) ** 2 / len(labels) - mean**2)
    print(f"gradient variances of the first two domains differ by {((variances[0] - variances[1]) ** 2).sum():.3e}")
