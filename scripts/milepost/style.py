"""The look of all figures: settings on top of seaborn's theme."""

from __future__ import annotations

STYLE = {
    "svg.hashsalt": "milepost",
    "svg.fonttype": "none",  # small files, text that can be searched, and any script that the reader's fonts know
    "text.parse_math": False,  # a $ in a title is a $
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "0.92",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
}
