"""The signature of a model: the inputs it takes, and the classes it tells apart."""

from typing import TYPE_CHECKING, Any, Self

from attrs import fields_dict, frozen

from fishr.data.domains import Domains
from fishr.losses import Loss, outputs_of

if TYPE_CHECKING:
    from fishr.data.images.preprocessing import Preprocessing


@frozen
class Signature:
    """Inputs and classes of a model, which a checkpoint keeps so that the model is built without the data."""

    shape: tuple[int, ...]  # of one input
    classes: int
    class_names: tuple[str, ...] | None = None
    preprocessing: "Preprocessing | None" = None  # of images; None: the data were no images in files
    label_columns: int | None = None  # labels in floating point of a sample; None: its class

    @classmethod
    def of(cls, domains: Domains) -> Self:
        """Return the signature of models of a data set."""
        found: Any = getattr(domains.training[0].inputs, "preprocessing", None)
        if found is not None:
            # Only here: data that are no images do without this package.
            from fishr.data.images.preprocessing import Preprocessing

            found = found if isinstance(found, Preprocessing) else None
        return cls(domains.shape, domains.classes, domains.class_names, found, domains.label_columns)

    def outputs(self, loss: Loss) -> int:
        """Return the number of the model's outputs."""
        return outputs_of(loss, self.classes, self.label_columns)

    @classmethod
    def read(cls, tree: Any) -> Self:
        """Return the signature of the dict of its fields; ValueError or TypeError for anything else."""
        if not isinstance(tree, dict) or {"label_columns", *tree} != fields_dict(cls).keys():
            raise TypeError("not the fields of a signature")
        if tree["preprocessing"] is not None:
            from fishr.data.images.preprocessing import Preprocessing

            tree = {**tree, "preprocessing": Preprocessing(**tree["preprocessing"])}
        found = cls(**tree)
        counts = (*found.shape, found.classes, 1 if found.label_columns is None else found.label_columns)
        if any(type(count) is not int or count < 1 for count in counts):
            raise ValueError("shape or classes are no counts")
        if found.class_names is not None and len(found.class_names) != found.classes:
            raise ValueError("another number of names than of classes")
        return found
