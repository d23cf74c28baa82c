"""What the course shows: figures in one style, drawings, sliders, tables."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # tables
        "table": "tables",  # results as a table: HTML, and aligned text
        # sliders
        "slider": "sliders",  # a plot for each value of a dial, moved by hand
        # drawings
        "drawing": "drawings",  # a drawing of a mechanism, shown inline
        # style
        "COLORS": "style",  # Okabe and Ito's palette without its yellow
        "ROLES": "style",  # what a colour means, through the whole book
        "TASKS": "style",  # the colours of tasks, in their order
        "use_style": "style",  # matplotlib's defaults for the course
        "tell_apart": "style",  # a dash per line, for those who see no colours
        "band": "style",  # the mean over runs and its spread
    },
)
