"""What tests ask of every figure."""

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from cltmlib import figures


def texts(figure, gid):
    return [text.get_text() for text in figure.findobj(Text) if text.get_gid() == gid]


def lines(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def assert_legible(figure):
    """All text lies on the page, and no two texts touch."""
    with figures.style():
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw_without_rendering()
        hidden = set(_hidden_tick_labels(figure))
        shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
        shown = [text for text in shown if text not in hidden]
        boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in shown]
    for text, box in boxes:
        inside = figure.bbox.padded(1)
        assert inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1, text
    for (text, box), (other, other_box) in itertools.combinations(boxes, 2):
        common = Bbox.intersection(box, other_box)
        # Boxes hold the room of descenders, so neighbouring lines of a note may share a pixel.
        assert common is None or min(common.width, common.height) <= 1.5, (text, other)


def _hidden_tick_labels(figure):
    """A tick outside the limits of its axis is in the tree, but not drawn."""
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            yield from (tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high)
