"""Gradients whose common norm is bounded."""

import torch

from fishr.training.optimizers import Gradients


def clipped(gradients: Gradients, most: float) -> Gradients:
    """Gradients times min(1, most / (‖g‖ + 1e-6)), ‖g‖ the Euclidean norm over all of them together.

    Args:
        gradients: one a parameter, or None, which stays.
        most: the norm that they may have.

    Returns:
        New gradients, in the given order, to the bits of ``torch.nn.utils.clip_grad_norm_``.

    Example:
        >>> clipped((torch.tensor([3.0]), None, torch.tensor([4.0])), most=1.0)
        (tensor([0.6000]), None, tensor([0.8000]))

    Source:
        Pascanu, Mikolov and Bengio, On the difficulty of training recurrent neural networks, ICML 2013.
    """
    norms = [torch.linalg.vector_norm(gradient) for gradient in gradients if gradient is not None]
    if not norms:
        return gradients
    # As torch has it, on the device: asking whether the norm is too large would wait for it.
    scale = (most / (torch.linalg.vector_norm(torch.stack(norms)) + 1e-6)).clamp(max=1.0)
    return tuple(None if gradient is None else gradient * scale for gradient in gradients)
