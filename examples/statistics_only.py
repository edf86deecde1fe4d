"""Gradient statistics of a head on cached features, without a network or a training loop.

The features of the third of three domains have twice the spread. Run: python statistics_only.py
"""

import torch

import fishr

torch.manual_seed(0)
head = torch.nn.Linear(16, 4)
sizes = (200, 300, 100)
spread = torch.tensor([1.0, 1.0, 2.0]).repeat_interleave(torch.tensor(sizes))
features, labels = torch.randn(600, 16) * spread[:, None], torch.randint(4, (600,))

# Mean and variance, in each domain, of the per-sample gradients by the head's parameters.
with torch.no_grad():
    whole = fishr.gradient_moments(head, features, labels, sizes)
print(f"variance: {tuple(whole.variance.shape)} [domain, parameter] of {', '.join(whole.layout.names)}")

# The same from chunks, here a tenth of each domain at a time.
parts = []
rows, answers = features.split(sizes), labels.split(sizes)
with torch.no_grad():
    for chunk in range(10):
        z = torch.cat([domain.chunk(10)[chunk] for domain in rows])
        y = torch.cat([domain.chunk(10)[chunk] for domain in answers])
        parts.append(fishr.gradient_moments(head, z, y, tuple(n // 10 for n in sizes)))
merged = fishr.merge_moments(*parts)
apart = (merged.variance - whole.variance).abs().max() / whole.variance.abs().max()
print(f"merged: {merged.count} samples, variances differ from the whole's by {apart.item():.1e}")

# Distances between the domains: the Fishr penalty, the same without the loss's scale, and by pairs.
print(f"distance to mean: {fishr.distance_to_mean(whole.variance).item():.3e}")
print(f"scale-free distance: {fishr.scale_free_distance(whole.variance).item():.3f}")
print("pairwise distances:")
for row in fishr.pairwise_distances(whole.variance):
    print("  " + "  ".join(f"{distance.item():.3e}" for distance in row))

# By parameter: each column of a statistic belongs to one.
by_name = whole.layout.split(whole.variance)
for name, variance in by_name.items():
    shares = variance.flatten(1).sum(1) / variance.flatten(1).sum(1)[0]
    print(f"total variance of the {name}, relative to domain 0: " + "  ".join(f"{s.item():.2f}" for s in shares))

# Full covariances instead of their diagonals, through inner products of gradients; no P×P matrix is stored.
with torch.no_grad():
    products = fishr.covariance_products(fishr.gradient_gram(head, features, labels), sizes)
print(f"distance to mean of the covariances: {fishr.distance_to_mean_of_products(products).item():.3e}")
