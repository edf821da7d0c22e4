"""The Ratings tab: a host for what people ranked and wrote."""

from __future__ import annotations

import gradio as gr

from ui.board.board import RATINGS_ID


def build_ratings_tab() -> None:
    """Add the tab to the Blocks that are being built; ``ratings.js`` fills its column."""
    with gr.Tab("Ratings", id="ratings"):
        gr.Column(elem_id=RATINGS_ID, min_width=0)
