"""Networks: trunks from inputs to features, and what they cost."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "mlp": "trunks",
        "cnn": "trunks",
        "conv4": "trunks",
        "Classifier": "trunks",
        "resnet": "residual",
        "ResNet": "residual",
        "Block": "residual",
        "parameters": "cost",
        "flops": "cost",
        "widest": "cost",
    },
)
