"""Networks: trunks from inputs to features, and what they cost."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # trunks and a classifier
        "mlp": "trunks",  # fully connected layers
        "cnn": "trunks",  # a small convolutional trunk for square images
        "conv4": "trunks",  # the four convolutions of the few-shot literature
        "Classifier": "trunks",  # a trunk and a linear head
        # residual networks
        "resnet": "residual",  # a residual trunk of any depth and width
        "ResNet": "residual",  # what `resnet` returns: stem, stages, means
        "Block": "residual",  # two convolutions and a shortcut
        # a pretrained encoder of sentences
        "minilm": "sentence_encoder",  # all-MiniLM-L6-v2 as a torch module
        "SentenceEncoder": "sentence_encoder",  # tokens to the mean of their features
        "WordPiece": "sentence_encoder",  # texts to tokens
        "encode": "sentence_encoder",  # features of many sentences
        # what a network costs
        "parameters": "cost",  # how many numbers are learned
        "flops": "cost",  # operations for one example
        "widest": "cost",  # the largest width within a budget of parameters
    },
)
