"""Tables of numbers and categories as inputs of a network.

columns = data.Columns(train, numbers=["age"], categories=["job", "town"])
embedding = TableEmbedding(columns.numbers, columns.levels)
trunk = nn.Sequential(embedding, *mlp([embedding.features, 64, 32]))
trunk(torch.from_numpy(columns(test)))
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


class TableEmbedding(nn.Module):
    """Rows of a table to features: numbers as they are, a learned vector for each category.

    Called with x [B, numbers + categories], as `mtl_course.data.Columns` gives them, it gives
    [B, features]. Code 0 stands for a category that training has not seen: its vector is zero and
    stays so, as if the column said nothing.

    Args:
        numbers: names of the columns with numbers, which come first.
        levels: column -> its categories, without the unknown one; their codes are 1 to this number.
        width: length of a category's vector.

    Raises:
        ValueError: if there is no column at all; when called, for another number of columns, a code
            that its column does not have, or a number that is not finite. It names row and column.

    Source:
        Guo and Berkhahn, "Entity Embeddings of Categorical Variables", arXiv 1604.06737, 2016,
        section 3.

    Example:
        >>> embedding = TableEmbedding(["age"], {"job": 3, "town": 5}, width=2)
        >>> embedding.features
        5
        >>> z = embedding(torch.tensor([[0.3, 2, 5], [0.1, 0, 1]]))
        >>> list(z.shape), z[1, 1:3].tolist()  # nobody knows this job
        ([2, 5], [0.0, 0.0])
        >>> embedding(torch.tensor([[0.3, 4, 1]]))
        Traceback (most recent call last):
        ValueError: Row 0 has the code 4.0 in column 'job', whose codes are 0 to 3.
    """

    def __init__(self, numbers: Sequence[str], levels: Mapping[str, int], width: int = 8):
        super().__init__()
        self.numbers, self.levels = list(numbers), dict(levels)
        if not self.numbers and not self.levels:
            raise ValueError("A table needs at least one column.")
        self.features = len(self.numbers) + width * len(self.levels)
        # one table for all columns, each from its own row on
        counts = torch.tensor(list(self.levels.values()), dtype=torch.int64)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("starts", counts.cumsum(0) - counts, persistent=False)
        self.vectors = nn.Embedding(1 + int(counts.sum()), width, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        """Features [B, features]."""
        self._check(x)
        numbers, codes = x[:, : len(self.numbers)], x[:, len(self.numbers) :].long()
        rows = torch.where(codes == 0, 0, codes + self.starts)
        return torch.cat([numbers, self.vectors(rows).flatten(1)], dim=1)

    def _check(self, x: Tensor) -> None:
        """ValueError for rows that cannot be read."""
        names = [*self.numbers, *self.levels]
        if x.dim() != 2 or x.shape[1] != len(names):
            raise ValueError(
                f"The table has {len(names)} columns ({', '.join(names)}); these inputs have the"
                f" shape {list(x.shape)}."
            )
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return  # no waiting for the device
        bad = ~x.isfinite()
        codes = x[:, len(self.numbers) :]
        bad[:, len(self.numbers) :] |= (
            (codes < 0) | (codes > self.counts) | (codes != codes.floor())
        )
        if bad.any():
            row, column = bad.nonzero()[0].tolist()
            value, name = float(x[row, column]), names[column]
            if name in self.levels and column >= len(self.numbers):
                raise ValueError(
                    f"Row {row} has the code {value} in column {name!r}, whose codes are 0 to"
                    f" {self.levels[name]}."
                )
            raise ValueError(f"Row {row} has {value} in column {name!r}: fill it, or leave it out.")
