"""The tab "Is it better?": a host for what blind rankings say of the versions."""

from __future__ import annotations

import gradio as gr

from ui.board.board import EVIDENCE_ID


def build_evidence_tab() -> None:
    """Add the tab to the Blocks that are being built; ``evidence.js`` fills its column."""
    with gr.Tab("Is it better?", id="evidence"):
        gr.Column(elem_id=EVIDENCE_ID, min_width=0)
