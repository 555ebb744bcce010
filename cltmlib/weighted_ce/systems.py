"""The systems that the study compares: rows of its table."""

from collections.abc import Mapping
from dataclasses import dataclass

from cltmlib.weighted_ce.weights import ConstantWeight, LinearProgressiveWeight, LossRatioWeight, Weight


@dataclass(frozen=True)
class System:
    """One way of fine-tuning, by what differs from plain fine-tuning on all languages.

    Attributes:
        weight: ``none``, ``linear``, ``ratio`` or ``constant``.
        scales_batches: weights scale the batch's averaged loss, as in the authors' released code.
        augmented: the low-resource language is augmented.
        data: ``all`` languages; ``low``, the low-resource language alone; ``rehearsal``, that and a share of others.
        consolidated: elastic weight consolidation keeps weights that matter for the other languages.
    """

    weight: str = "none"
    scales_batches: bool = False
    augmented: bool = False
    data: str = "all"
    consolidated: bool = False


FISHER_CLIPS = 20  # per high-resource language, for elastic weight consolidation
ORIGINAL = "original"  # no fine-tuning
PLAIN = "fine-tuned"
SYSTEMS: dict[str, System] = {
    PLAIN: System(),
    "+ linear progressive": System("linear"),
    "+ loss ratio": System("ratio"),
    "fine-tuned, augmented": System(augmented=True),
    "+ linear progressive, augmented": System("linear", augmented=True),
    "+ loss ratio, augmented": System("ratio", augmented=True),
    "+ constant weight": System("constant"),
    "+ batch_scale": System("linear", scales_batches=True),
    "low-resource only": System(data="low"),
    "rehearsal": System(data="rehearsal"),
    "EWC": System(data="low", consolidated=True),
}

# Relative changes that the paper reports (abstract): low-resource WER against plain fine-tuning and against the
# original Whisper, and the average over the six languages. Which system reaches them is not said there.
PUBLISHED = {"low-resource, to fine-tuned": -0.0669, "low-resource, to original": -0.4886, "average": -0.0329}


def schedule(system: System, params: Mapping) -> Weight:
    """The weights of a system: `LinearProgressiveWeight` over the second half of the steps, and so on.

    The constant weight is the mean of the linear one, so that the two differ in when they act, not in how much.
    """
    linear = LinearProgressiveWeight(
        params["n_steps"], params["n_steps"] // 2, params["linear_initial"], params["linear_final"]
    )
    return {
        "none": ConstantWeight(1.0),
        "linear": linear,
        "ratio": LossRatioWeight(params["ratio_alpha"], params["ratio_smoothing"]),
        "constant": ConstantWeight(linear.mean),
    }[system.weight]
