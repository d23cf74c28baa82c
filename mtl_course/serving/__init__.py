"""A model that others ask: a release on disk, an HTTP service, and an alarm for drift."""

from .._lazy import exports

__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        # texts in
        "NGrams": "ngrams",  # texts to numbers of words and pairs of words
        # a release: all that answers, in one folder
        "export_model": "release",  # a network as a program, for batches of any size
        "save_release": "release",  # program, words, card and golden answers, with checksums
        "load_release": "release",  # and back, refused if a file was altered
        "Release": "release",  # what is loaded
        "ReleaseError": "release",  # it must not be served; says why
        "regressions": "release",  # golden answers that came out differently
        # the service
        "Service": "service",  # checks requests and answers them, a sentence for each refusal
        "Limits": "service",  # of a request
        "running": "http",  # the service on a free port of this machine, for the length of a block
        "ask": "client",  # one request
        "load_test": "client",  # many, by a few clients: status and seconds of each
        # drift
        "psi": "drift",  # population stability index
        "DriftAlarm": "drift",  # rings when a window of requests is unlike the reference
    },
)
