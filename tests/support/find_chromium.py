"""Find a Chromium for the browser tests; with ``--install``, try to install one.

Looks at ``CHATRLHF_CHROMIUM``, the usual names on PATH, and playwright's own download. Installing
tries playwright's download, then Debian's package where this process may install packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",)
HELP = (
    "No Chromium was found, so the browser tests will be skipped. Install one (Debian and Ubuntu: "
    "apt install chromium; elsewhere: .venv/bin/playwright install chromium), or set "
    "CHATRLHF_CHROMIUM to its path."
)


def find_chromium() -> str | None:
    """Path of a Chromium that can be started, or None."""
    chosen = os.environ.get("CHATRLHF_CHROMIUM")
    if chosen:
        return chosen if Path(chosen).exists() else None
    for name in NAMES:
        if path := shutil.which(name):
            return path
    for path in (*APPLICATIONS, _downloaded()):
        if path and Path(path).exists():
            return path
    return None


def install() -> None:
    """Try the ways to install a Chromium, quietly, until one works."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        attempts.insert(0, ["apt-get", "install", "-y", "-q", "chromium"])
        attempts.insert(0, ["apt-get", "update", "-q"])
    for command in attempts:
        print("trying:", " ".join(command), flush=True)  # noqa: T201
        try:
            subprocess.run(command, check=False, timeout=600, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"did not work: {error}")  # noqa: T201
        if find_chromium():
            return


def _downloaded() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def main() -> None:
    """Print where Chromium is, or how to get one; never fails."""
    if find_chromium() is None and "--install" in sys.argv:
        install()
    print(f"Chromium: {find_chromium() or HELP}")  # noqa: T201


if __name__ == "__main__":
    main()
