"""The People tab: a host for the own account, the team, invitations and the audit log."""

from __future__ import annotations

import gradio as gr

from ui.board.board import PEOPLE_ID


def build_people_tab() -> None:
    """Add the tab to the Blocks that are being built; ``people.js`` fills its column."""
    with gr.Tab("People", id="people"):
        gr.Column(elem_id=PEOPLE_ID, min_width=0)
