"""A window of its own for the page: a browser of the Chromium family in its app mode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from chatrlhf.errors import SettingsError

_COMMANDS = (
    "google-chrome",
    "google-chrome-stable",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "microsoft-edge-stable",
    "brave-browser",
    "chrome",
    "msedge",
)
_MAC = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Brave Browser.app/Contents/MacOS/Brave Browser",
)
_WINDOWS = (
    r"Google\Chrome\Application\chrome.exe",
    r"Microsoft\Edge\Application\msedge.exe",
    r"Chromium\Application\chrome.exe",
)
_WINDOWS_FOLDERS = ("PROGRAMFILES", "PROGRAMFILES(X86)", "LOCALAPPDATA")


def find_browser(which: Callable[[str], str | None] = shutil.which) -> str:
    """The program of a browser that can open a page without its own bars.

    Raises:
        SettingsError: none is installed.
    """
    for command in _COMMANDS:
        found = which(command)
        if found:
            return found
    for path in _usual_places():
        if path.is_file():
            return str(path)
    raise SettingsError(
        "--window needs Chrome, Edge, Chromium or Brave, and none of them was found. Start with "
        "--open instead: any browser shows the page."
    )


def open_window(browser: str, url: str) -> None:
    """Open the page in a window of its own; it stays when this program ends."""
    subprocess.Popen(
        [browser, f"--app={url}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _usual_places() -> Iterable[Path]:
    if sys.platform == "darwin":
        return [Path(path) for path in _MAC]
    folders = [os.environ.get(name) for name in _WINDOWS_FOLDERS]
    return [Path(folder) / path for folder in folders if folder for path in _WINDOWS]
