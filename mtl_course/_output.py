"""What a call shows: HTML in a notebook, plain text everywhere else."""

import sys


class Output:
    """Something to look at, in both forms.

    Args:
        html: shown by notebooks and the book.
        text: shown where there is no HTML; lines of at most 76 characters.
    """

    def __init__(self, html: str, text: str):
        self.html, self.text = html, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def show(output: Output) -> None:
    """Display an output in a notebook; print its text where there is none."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None:
        from IPython.display import display

        display(output)
    else:
        print(output.text)
