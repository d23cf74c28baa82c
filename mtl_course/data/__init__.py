"""Every data set of the course by its name, from the first place that has it.

    from mtl_course import data

    exam = data.load("exam")  # a Dataset: exam["x"] or exam.x, exam.y, exam.task, exam.info
    train, test = data.split_per_task(exam.task, n_train=6, seed=0, n_max=36)  # row numbers
    few = data.per_class(data.load("digits").y, n=5, seed=0)  # five rows of every class

`names()` lists the sets, `info(name)` is the manifest's entry: title, tier, source, licence, shape,
citation, note. Four tiers: E is embedded, P comes once from a published package through pip, R lies
in a data root (MTL_COURSE_DATA), D is downloaded by torchvision. P and D are kept in a cache
(MTL_COURSE_CACHE, default ~/.cache/mtl_course) and need no network afterwards; ``python -m
mtl_course.data`` fetches ahead.

Images are uint8, [N, H, W] or [N, H, W, 3]; labels and tasks int64 [N]; tables float64. The first
load of a P or D set writes a line to stderr, so keep a `load` out of notebook cells whose output is
compared. What cannot be had raises DataError, which says what to do.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "load": "door",
        "load_or_partial": "door",
        "names": "manifest",
        "info": "manifest",
        "Info": "manifest",
        "DataError": "manifest",
        "Dataset": "dataset",
        "per_class": "splits",
        "split_per_task": "splits",
        "Batch": "batches",
        "Table": "batches",
        "Separate": "batches",
        "flip": "augment",
        "crop": "augment",
        "cutout": "augment",
        "corrupt": "corruptions",
        "Episodes": "episodes",
        "EpisodeSource": "episodes",
        "split_classes": "episodes",
        "require_disjoint": "episodes",
        "sinusoids": "episodes",
    },
)
