"""The Queue tab: a host for rating what is ready, and for the pool of prompts."""

from __future__ import annotations

import gradio as gr

from ui.board.board import QUEUE_ID


def build_queue_tab() -> None:
    """Add the tab to the Blocks that are being built; ``queue.js`` fills its column."""
    with gr.Tab("Queue", id="queue"):
        gr.Column(elem_id=QUEUE_ID, min_width=0)
