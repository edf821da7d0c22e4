"""The Chat tab: a host for the ranking board."""

from __future__ import annotations

import gradio as gr

from ui.board.board import CHAT_ID


def build_chat_tab() -> None:
    """Add the tab to the Blocks that are being built; ``chat.js`` fills its column."""
    with gr.Tab("Chat", id="chat"):
        gr.Column(elem_id=CHAT_ID, min_width=0)
