"""In the graph: what is measured inside the compiled train step, and how.

All knowledge of Keras' and TensorFlow's internals sits in this package; each
piece names the file and version that it was read in.
"""

from gradwatch.capture.contents import restore
from gradwatch.capture.frames import FitFrame
from gradwatch.capture.install import Capture
from gradwatch.capture.schedule import Schedule
from gradwatch.capture.support import refuse_unsupported
from gradwatch.capture.tap import Tap
from gradwatch.capture.watcher import Watcher

__all__ = [
    "Capture",
    "FitFrame",
    "Schedule",
    "Tap",
    "Watcher",
    "refuse_unsupported",
    "restore",
]
