"""Write docs/diagnostics.md from the registry of diagnostics: python docs/diagnostics.py."""

from pathlib import Path

from fishr.diagnostics.registry import SECTIONS, Entry, diagnostics

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Diagnostics

`fishr.diagnostics.measure` returns the quantities of a head, `measure_network` those of a whole network (marked
*network*); `fishr analyze` prints both. Quantities of risks on a grid belong to a landscape (`fishr landscape`). Each
is also a function of its own, such as `fishr.diagnostics.hessian_trace(head, features, labels, sizes)`.
[What the diagnostics mean](reading-diagnostics.md) says which ones to read first.

R_e is the mean loss of domain e at the weights θ, g_e = ∇R_e its gradient, C_e the covariance of the per-sample
gradients g_n, v_e = diag C_e, H_e = ∇²R_e the Hessian and h_e its diagonal, all by the head's P parameters; A and B are
two of the K domains. A quantity without the axis "domain" is of the training domains together. A quantity that is not
exact has an error: twice the error covers the exact value in about 95 of 100 seeds.

For cross-entropy and logistic losses the Fisher, with labels drawn from the model, is the Gauss-Newton matrix, and for
a linear head also the Hessian, exactly. The empirical Fisher and C use the data's labels, so that their agreement with
the Hessian is empirical: read the cosine beside the distance. Sharpness often fails to predict the error on other
domains, or predicts it inversely: it is a description, not a score. Head Hessians are rank-deficient; they are inverted
on their range, with the ridge in the route.

A Hessian is held whole up to 2048 parameters. Of larger heads that are not linear it is known by its products with
vectors: the graph of the gradient is kept, and each product is one pass through it. Eigenvalues iterate in float32
until their residuals are at most `tolerance` times the largest eigenvalue (0.001 by default; below 0.0001 in the head's
own type); the values and residuals themselves come from products in the head's own type. The residual is the error: an
eigenvalue is that near, and the value of one that stands apart is far nearer. `fishr analyze` takes 20 eigenvalues of
small and of linear heads, and 5 of large ones and of networks; `--eigenvalues` and `--tolerance` change both. Norms and
inner products of such Hessians are exact on the span of all domains' top eigenvectors, up to 5 of each, and random
vectors estimate the rest, so that the few large eigenvalues do not scatter them.

Where H must be inverted, the Gauss-Newton matrix G stands for it, as no Cholesky factor copes with negative
eigenvalues. If all parameters belong to `nn.Linear` layers, each called once on [n, i], the Jacobian of output c on
sample n by the weight of a layer is an outer product δ_n^c h_nᵀ, and G follows from these factors: its diagonal, the
whole matrix (up to 2²⁷ numbers in all domains together), and the Gram matrix of the Jacobians (up to 4096 samples times
outputs), with which tr((G + r)⁻¹C) is exact. Everything else is solved by block conjugate gradients.

`fishr analyze --explain gradient_norm` prints an entry of this page. The page is generated:
`python docs/diagnostics.py`.
"""


def page() -> str:
    """Return the page: a section for each kind of quantities, an entry for each quantity."""
    found = diagnostics()
    sections = [*SECTIONS, *dict.fromkeys(entry.section for entry in found.values() if entry.section not in SECTIONS)]
    parts = [
        f"\n## {SECTIONS.get(section, section)}\n"
        + "".join(_entry(name, entry) for name, entry in found.items() if entry.section == section)
        for section in sections
    ]
    return HEAD + "".join(parts)


def _entry(name: str, entry: Entry) -> str:
    said = {part: text.replace("``", "`").replace("*", "\\*") for part, text in entry.explanation.items()}
    meaning = said.pop("meaning", name)
    marked = f"`{name}`" + (" *network*" if "network" in entry.scopes else "")
    rows = "".join(f"- {part}: {text}\n" for part, text in said.items())
    return f"\n### {marked}\n\n{meaning[:1].upper()}{meaning[1:]}.\n\n{rows}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
