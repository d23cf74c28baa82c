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
        # padded texts and series
        "present": "sequences",  # where a padded batch holds something
        # recurrent networks
        "gru_cell": "recurrent",  # one step of a GRU
        "lstm_cell": "recurrent",  # one step of an LSTM
        "GRU": "recurrent",  # layers of GRU cells, for rows of any lengths
        "LSTM": "recurrent",  # layers of LSTM cells, for rows of any lengths
        "LastState": "recurrent",  # a trunk: the last state of either
        # Transformers
        "attention": "transformer",  # means weighted by how well query and key agree
        "attention_mask": "transformer",  # where each place may look
        "MultiHeadAttention": "transformer",  # attention in parts
        "EncoderLayer": "transformer",  # attention and two dense layers
        "Positions": "transformer",  # a table of what places mean
        "Transformer": "transformer",  # a trunk for texts and series
        "TaskTokens": "transformer",  # pattern: a learned query for each task
        # tables
        "TableEmbedding": "tables",  # numbers and categories to features
        # inputs of several kinds
        "Entries": "entries",  # pattern: an entrance for each task, one trunk
        # several kinds of input about the same row
        "WordTokens": "fusion",  # an entrance for texts
        "PictureCells": "fusion",  # an entrance for pictures
        "OneToken": "fusion",  # an entrance for what a module makes one vector of
        "modality_dropout": "fusion",  # hide one kind in some rows
        "LateFusion": "fusion",  # they meet at the end
        "CrossAttentionFusion": "fusion",  # each looks at the others first
        # a pretrained encoder of sentences
        "minilm": "sentence_encoder",  # all-MiniLM-L6-v2 as a torch module
        "SentenceEncoder": "sentence_encoder",  # tokens to the mean of their features
        "WordPiece": "sentence_encoder",  # texts to tokens
        "vocabulary": "sentence_encoder",  # pieces out of your own texts
        "encode": "sentence_encoder",  # features of many sentences
        # what a network costs
        "parameters": "cost",  # how many numbers are learned
        "flops": "cost",  # operations for one example
        "widest": "cost",  # the largest width within a budget of parameters
    },
)
