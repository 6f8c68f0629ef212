"""The job itself: folders of images in, annotations and a review queue out.

:func:`annotate_folder` and :func:`calibrate` take a predictor; ``alignsam annotate`` and ``alignsam calibrate`` are these on
the command line.
"""

from alignsam_sb3.annotate.calibrating import calibrate, labelled_like
from alignsam_sb3.annotate.formats import FORMATS
from alignsam_sb3.annotate.predicting import Predicts
from alignsam_sb3.annotate.run import Run
from alignsam_sb3.annotate.stream import Summary, annotate_folder

__all__ = ["FORMATS", "Predicts", "Run", "Summary", "annotate_folder", "calibrate", "labelled_like"]
