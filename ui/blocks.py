"""The Gradio page: a header over its tabs.

The page is the same for everybody and holds no state: what people see comes from ``/api``,
fetched by the modules in ``ui/board``.
"""

from __future__ import annotations

from typing import Any

import gradio as gr
from fastapi import FastAPI

from ui.board.board import HEADER_ID, head_html, mount_assets
from ui.chat_tab import build_chat_tab
from ui.evidence_tab import build_evidence_tab
from ui.people_tab import build_people_tab
from ui.queue_tab import build_queue_tab
from ui.ratings_tab import build_ratings_tab
from ui.training_tab import build_training_tab

IDLE_SECONDS = 1.0
SYSTEM_FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"]
SYSTEM_MONO_FONTS = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def build_blocks() -> gr.Blocks:
    """The page's layout. It has no event listeners, so Gradio's own API stays empty."""
    with gr.Blocks(
        title="chatrlhf", analytics_enabled=False, fill_width=True, fill_height=True
    ) as blocks:
        gr.Column(elem_id=HEADER_ID, min_width=0)
        # Not a menu of the tabs that do not fit: on a phone their row moves (page.css).
        with gr.Tabs(elem_id="chatrlhf-tabs", overflow_behavior="wrap"):
            build_chat_tab()
            build_queue_tab()
            build_ratings_tab()
            build_training_tab()
            build_evidence_tab()
            build_people_tab()
    return blocks


def page_options() -> dict[str, Any]:
    """Arguments of ``gr.mount_gradio_app``: looks, and everything Gradio need not offer off."""
    return {
        "theme": _theme(),
        "head": head_html(),
        "footer_links": [],
        "run_history": False,
        "show_error": False,
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
        "mcp_server": False,
    }


def mount_page(app: FastAPI, path: str = "/") -> FastAPI:
    """Serve the page at ``path`` and its files at ``/board``. Call it after all other routes."""
    mount_assets(app)
    blocks = build_blocks()
    mounted: FastAPI = gr.mount_gradio_app(app, blocks, path=path, **page_options())
    # Gradio looks for events of its own every millisecond, 5% of a core; the page has none.
    blocks._queue.sleep_when_free = IDLE_SECONDS
    blocks._queue.progress_update_sleep_when_free = IDLE_SECONDS
    return mounted


def _theme() -> gr.themes.Base:
    """System fonts (nothing is fetched), and page.css's colours so that loading won't flash."""
    theme = gr.themes.Base(font=SYSTEM_FONTS, font_mono=SYSTEM_MONO_FONTS)
    return theme.set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#141517",
        body_text_color="#1f2023",
        body_text_color_dark="#e9e8e5",
    )
