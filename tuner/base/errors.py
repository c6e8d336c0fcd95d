"""The error tree: what the user gave, what one image or one trial did, what ends a search.

TunerError                   everything tuner raises itself; the message is one sentence for the user
├── InvalidInput             what was given cannot work: said on the driver, exit code 2
│   ├── ExperimentError      an experiment file or an option that overrides it
│   ├── ImageSourceError     a folder, Parquet, table or built-in set of images
│   ├── NetworkError         a network's name, weights, input size or preprocessing
│   ├── CacheError           the feature cache cannot be read or written
│   ├── SessionError         the Spark session: its port, its slots, its endpoint
│   ├── TrackingError        the MLflow store or registry named, or a run in it
│   └── ModelError           a logged or registered model that cannot be used
├── StoreError               the MLflow store stopped answering in the midst of the work, exit code 1
├── ImageError               one image that cannot be decoded: quarantined, the search goes on
│   └── UndecidedImageError  memory or the system failed: it is tried again the next time
├── TrialError               one trial failed: a FAILED child run, the search goes on
└── SearchError              the search itself failed: nothing to register, exit code 1

Every class takes the message alone, so that an instance pickles: a trial's exception travels from a
Spark worker to the driver.
"""


class TunerError(Exception):
    """Base of every error that tuner raises itself."""


class InvalidInput(TunerError):
    """What the user gave cannot work; the message says what, where, and what to do."""


class ExperimentError(InvalidInput):
    """An experiment file, or an option that overrides it, is not valid."""


class ImageSourceError(InvalidInput):
    """A source of images is missing, empty, or unfit for the split asked for."""


class NetworkError(InvalidInput):
    """A network's name, weights, input size or preprocessing does not fit."""


class CacheError(InvalidInput):
    """The feature cache cannot be read or written."""


class SessionError(InvalidInput):
    """The Spark session cannot be had as asked: port, slots or endpoint."""


class TrackingError(InvalidInput):
    """The MLflow store or registry named does not answer or refuses, or has no such run."""


class ModelError(InvalidInput):
    """A logged or registered model cannot be found or is not one of tuner's."""


class StoreError(TunerError):
    """The MLflow store stopped answering, or refused, in the midst of the work."""


class ImageError(TunerError):
    """One image cannot be decoded; the message is the reason, without its path."""


class UndecidedImageError(ImageError):
    """One image could not be decoded this time, which says nothing of the image itself."""


class TrialError(TunerError):
    """One trial failed; the search goes on."""


class SearchError(TunerError):
    """The search failed as a whole; nothing was registered."""
