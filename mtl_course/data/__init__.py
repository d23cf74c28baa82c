"""Every data set of the course by its name, from the first place that has it.

    from mtl_course import data

    exam = data.load("exam")  # a Dataset: exam["x"] or exam.x, exam.y, exam.task, exam.info
    train, test = data.split_per_task(exam.task, n_train=6, seed=0, n_max=36)  # row numbers
    few = data.per_class(data.load("digits").y, n=5, seed=0)  # five rows of every class

`names()` lists the sets, `info(name)` is the manifest's entry: title, tier, source, licence, shape,
citation, note. There are five tiers: E is embedded, P comes once from a published package through
pip, N through npm where it is there, R lies in a data root (MTL_COURSE_DATA), D is downloaded by
torchvision. P, N and D are kept in a cache (MTL_COURSE_CACHE, default ~/.cache/mtl_course) and need
no network afterwards; ``python -m mtl_course.data`` fetches ahead.

Images are uint8, [N, H, W] or [N, H, W, 3]; labels and tasks int64 [N]; tables float64; texts are
strings. The first load of a P, N or D set writes a line to stderr, so keep a `load` out of notebook
cells whose output is compared. What cannot be had raises DataError, which says what to do.
"""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # every set by its name
        "load": "door",  # a data set, fetched into the cache first if need be
        "load_or_partial": "door",  # or the subset that a data root has
        "names": "manifest",  # the names of all sets
        "info": "manifest",  # a set's entry: source, licence, shapes, citation
        "Info": "manifest",  # such an entry
        "DataError": "manifest",  # a set could not be had; says what to do
        "Dataset": "dataset",  # what `load` returns: named read-only arrays
        # splits by row numbers
        "per_class": "splits",  # a few rows of every class
        "split_per_task": "splits",  # rows to train and to test on, for every task
        # batches for several tasks
        "Table": "batches",  # several labels for the same inputs
        "Separate": "batches",  # a data set of its own for each task
        "Batch": "batches",  # what both give
        "Sequences": "sequences",  # a table of padded texts or series, batches of like length
        "Unequal": "kinds",  # a data set of its own for each task, of any kind
        "Inputs": "kinds",  # inputs of several kinds in one loop
        # texts, series and tables as tensors
        "text_ids": "sequences",  # texts to numbers of tokens
        "pad": "sequences",  # series of unequal length in one tensor
        "Columns": "columns",  # a table to scaled numbers and codes of categories
        # splits in time
        "split_in_time": "time_splits",  # parts between cuts, with a gap before each
        "rolling_origins": "time_splits",  # the past of each origin, and what came next
        "windows": "time_splits",  # stretches of a series and what came after them
        "Scaler": "time_splits",  # mean 0 and deviation 1, by the past alone
        # random changes of images
        "flip": "augment",  # mirror left to right
        "crop": "augment",  # pad and cut a window
        "cutout": "augment",  # a square of zeros
        "compose": "augment",  # one change after the other
        "corrupt": "corruptions",  # noise, blur, contrast, rotation, translation
        # episodes for meta-learning
        "Episodes": "episodes",  # many small tasks of one shape
        "EpisodeSource": "episodes",  # draws them from one data set
        "sinusoids": "episodes",  # regressions on waves of random amplitude and phase
        "split_classes": "episodes",  # classes for training, validation and test
        "require_disjoint": "episodes",  # refuses a class in two parts
    },
)
