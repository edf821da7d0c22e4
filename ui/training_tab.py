"""The Training tab: a host for the trainer's state, its curves and the versions."""

from __future__ import annotations

import gradio as gr

from ui.board.board import TRAINING_ID


def build_training_tab() -> None:
    """Add the tab to the Blocks that are being built; ``training.js`` fills its column."""
    with gr.Tab("Training", id="training"):
        gr.Column(elem_id=TRAINING_ID, min_width=0)
