"""What an answer returned, taken apart so that a card names the part that differs."""

import numbers

import numpy as np
import torch

from ..checks import values


def named(result, *names):
    """The parts of a tuple that an answer returned, by the names that the docstring gives them.

    Raises:
        ValueError: it is no tuple or list, or has another length.
    """
    required(result)
    if not isinstance(result, list | tuple) or len(result) != len(names):
        returned = values.kind(result)
        if isinstance(result, list | tuple):
            returned += f" of {len(result)}"
        raise ValueError(f"Return ({', '.join(names)}); yours is {returned}.")
    return dict(zip(names, result, strict=True))


def scalar(value, name):
    """A scalar as a float: a number, or a tensor or array without dimensions.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach()
    is_array = isinstance(value, torch.Tensor | np.ndarray)
    if (is_array and value.ndim == 0) or isinstance(value, numbers.Real):
        return float(value)
    shape = f" of shape {tuple(value.shape)}" if is_array else ""
    raise ValueError(f"{name} is to be a scalar; yours is {values.kind(value)}{shape}.")


def required(result):
    """The result itself.

    Raises:
        ValueError: nothing was returned.
    """
    if result is None:
        raise ValueError("Your function returned None. Did you forget `return`?")
    return result
