"""Loss that pulls the tokens of parallel utterances together (arXiv 2511.09232, Section 2.2), and simpler controls."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cltmlib.errors import InputError
from cltmlib.potsa.transport import cosine_cost, sinkhorn, squared_euclidean_cost

KINDS = ("transport", "mse", "cosine")
_COSTS = {"cosine": cosine_cost, "squared_euclidean": squared_euclidean_cost}


def alignment_loss(
    source: Sequence[Tensor],
    target: Sequence[Tensor],
    source_mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    layers: Sequence[int] | None = None,
    kind: str = "transport",
    cost: str = "cosine",
    epsilon: float = 0.1,
    freeze_source: bool = False,
    max_iterations: int = 1000,
    tolerance: float = 1e-9,
) -> Tensor:
    """Mean distance between the tokens of parallel utterances, over pairs and over the layers I.

    Paper, Eq. (4): ``loss = cross_entropy + alpha * alignment_loss(...)`` with alpha = 10; ``layers`` is I.

    ``kind`` names the distance of a pair: "transport" is ``sinkhorn`` (Eq. 3). The controls take the i-th token of one
    side with the i-th of the other, which queries allow: "mse" is the mean square of the differences, over tokens and
    dimensions, and "cosine" the mean of ``1 - cos``. All three are means over dimensions or angles, so alpha means the
    same at every width.

    Choice: epsilon 0.1 and the cosine cost; the paper gives no value, and names cosine as an example.

    Args:
        source: tokens of each layer, as from ``output_hidden_states``; each float, shape (pair, n, dim).
        target: the same for the other side, each of shape (pair, m, dim).
        source_mask: True at valid tokens, shape (pair, n); None: all are.
        target_mask: the same, shape (pair, m).
        layers: positions in ``source`` and ``target``; None takes all.
        kind: one of ``KINDS``.
        cost: ground cost of the transport, "cosine" or "squared_euclidean".
        epsilon: weight of the entropy of the transport.
        freeze_source: no gradient to the source, for a frozen anchor.
        max_iterations, tolerance: of ``sinkhorn``.

    Returns:
        A scalar, at least float32.

    Raises:
        InputError: a side of a pair has no valid token, a feature at a valid token is not finite, the sides do not fit
            together, there is no pair or no layer, or an option is unknown.

    Example:
        >>> tokens = [torch.eye(2)[None]]
        >>> alignment_loss(tokens, [tokens[0].flip(1)], kind="cosine").item()
        1.0
    """
    if kind not in KINDS or cost not in _COSTS:
        raise InputError(f"Alignment {kind!r} with cost {cost!r}: there are {', '.join(KINDS)}; {', '.join(_COSTS)}.")
    layers = range(len(source)) if layers is None else list(layers)
    if isinstance(source, Tensor) or not len(layers) or not all(0 <= k < min(len(source), len(target)) for k in layers):
        raise InputError(f"Layers {list(layers)} are not among the {len(source)} that are given as a sequence.")
    sides = []
    for name, hidden, mask in (("source", source, source_mask), ("target", target, target_mask)):
        if not len(hidden[layers[0]]):
            raise InputError("The alignment loss of no pair is undefined: give at least one.")
        if mask is None:
            mask = torch.ones(hidden[layers[0]].shape[:2], dtype=torch.bool, device=hidden[layers[0]].device)
        sides += [torch.cat([_checked(hidden[layer], mask, name, layer) for layer in layers]), mask.bool()]
    source, source_mask, target, target_mask = sides
    if freeze_source:
        source = source.detach()
    if kind == "transport":
        masks = source_mask.repeat(len(layers), 1), target_mask.repeat(len(layers), 1)
        return sinkhorn(_COSTS[cost](source, target), epsilon, *masks, max_iterations, tolerance)[0].mean()
    if source.shape != target.shape or not torch.equal(source_mask, target_mask):
        raise InputError(f"Alignment {kind!r} takes token by token: both sides need the same number of valid tokens.")
    if kind == "mse":
        distance = (source - target).square().mean(2)  # (layer * pair, token)
    else:
        distance = 1 - torch.cosine_similarity(source, target, dim=2)
    weight = (source_mask / source_mask.sum(1, keepdim=True)).repeat(len(layers), 1)
    return (distance * weight).sum(1).mean()


def _checked(hidden: Tensor, mask: Tensor, side: str, layer: int) -> Tensor:
    """The tokens of one layer, 0 at padding, at least float32."""
    if mask.shape != hidden.shape[:2]:
        raise InputError(f"The {side}_mask has the shape {tuple(mask.shape)}, not {tuple(hidden.shape[:2])}.")
    empty = ~mask.bool().any(1)
    if empty.any():
        raise InputError(f"Pair {int(empty.int().argmax())} has no valid {side} token: leave it out.")
    hidden = hidden.masked_fill(~mask.bool()[:, :, None], 0).to(torch.promote_types(hidden.dtype, torch.float32))
    wrong = ~hidden.isfinite().all(2).all(1)
    if wrong.any():
        raise InputError(
            f"Features of pair {int(wrong.int().argmax())} ({side}, layer {layer}) are not finite: check its audio."
        )
    return hidden
