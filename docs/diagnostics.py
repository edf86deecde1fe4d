"""Write docs/diagnostics.md from the registry of diagnostics: python docs/diagnostics.py."""

from pathlib import Path

from fishr.diagnostics.registry import SECTIONS, Entry, diagnostics

PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Diagnostics

For readers who look up a quantity: its formula, unit, route and source. [What the diagnostics
mean](reading-diagnostics.md) says which ones to read first.

`fishr analyze` prints the quantities of a head, and with `--network` also those of the whole network (marked
*network*). `fishr landscape` prints those of risks on a grid. `fishr analyze --explain gradient_norm` prints an entry
of this page. In Python, `fishr.diagnostics.measure` and `measure_network` return them, and each is a function of its
own, such as `fishr.diagnostics.hessian_trace(head, features, labels, sizes)`.

## Notation and conventions

- R_e is the mean loss of domain e at the weights θ, and g_e = ∇R_e its gradient. C_e is the covariance of the
  per-sample gradients g_n, and v_e = diag C_e. H_e = ∇²R_e is the Hessian, and h_e its diagonal. Derivatives are with
  respect to the P parameters of the head. A and B are two of the K domains.
- A quantity without the axis "domain" is one value for all training domains.
- A quantity that is not exact has an error: the exact value is within twice the error for about 95 of 100 seeds.
- For cross-entropy and logistic losses the Fisher, whose labels are drawn from the model, equals the Gauss-Newton
  matrix, and for a linear head also the Hessian. The empirical Fisher and C use the labels of the data, so they need
  not agree with the Hessian: read the cosine beside the distance.
- Sharpness often fails to predict the error on other domains, or predicts the opposite. It is a description, not a
  score.

## How Hessians are computed

- **Up to 2048 parameters** the Hessian is computed as a whole matrix.
- **Linear heads** have closed forms of any size.
- **Larger heads that are not linear, and networks**, use products of the Hessian with vectors: the graph of the
  gradient is kept, and each product is one backward pass.
- **Eigenvalues** iterate in float32 until their residuals are at most `tolerance` (default 0.001) times the largest
  eigenvalue; with a tolerance below 0.0001 they iterate in the type of the head. The residual is the printed error.
  `fishr analyze` computes 20 eigenvalues of small and of linear heads, and 5 of large ones and of networks;
  `--eigenvalues` and `--tolerance` change this.
- **Norms and inner products** of large Hessians are exact on the span of up to 5 top eigenvectors of each domain.
  Random vectors estimate the rest.
- **Inverses.** Hessians of heads are singular. They are inverted on their range, with a ridge that the route names.
  For large heads the Gauss-Newton matrix G takes the place of H, because a Cholesky factor needs eigenvalues that are
  not negative. If all parameters belong to `nn.Linear` layers that are called once, G follows from their inputs and
  the derivatives of their outputs: its diagonal, the whole matrix (up to 2²⁷ numbers in all domains together), and
  the Gram matrix of the Jacobians (up to 4096 samples times outputs), with which tr((G + r)⁻¹C) is exact. Otherwise
  block conjugate gradients solve with G.
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
