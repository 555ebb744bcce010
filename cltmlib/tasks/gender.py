"""Gender recognition (paper, Section 3.3): binary classification, judged by macro-F1."""

from cltmlib.corpora import GENDERS
from cltmlib.tasks import classification
from cltmlib.tasks.classification import Classifier

VERSION = 1
PERFORMANCE, PERFORMANCE_NAME, CHANCE = "f1_macro", "macro-F1", 1 / 3  # chance: always the same answer
COLUMNS = ("gender",)
OPTIONS = ()
CLASSES = GENDERS


def model(encoder, rows, config) -> Classifier:
    """A linear layer over `CLASSES`."""
    return Classifier(encoder, CLASSES, "gender")


def evaluate(predict, training, rows) -> dict[str, dict[str, float]]:
    """Macro-F1, accuracy and ``n``, the number of clips, of every test set."""
    return classification.evaluate(predict, training, rows, CLASSES, "gender")
