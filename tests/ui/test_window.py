"""``serve --window``: which browser is found, and what is said without one."""

from __future__ import annotations

import subprocess

import pytest

from chatrlhf.errors import SettingsError
from ui import window


def test_the_first_known_browser_is_taken(monkeypatch):
    installed = {"chromium": "/usr/bin/chromium", "microsoft-edge": "/usr/bin/edge"}
    assert window.find_browser(installed.get) == "/usr/bin/chromium"


def test_without_a_browser_it_says_what_to_do(monkeypatch):
    monkeypatch.setattr(window, "_usual_places", list)
    with pytest.raises(SettingsError, match=r"--open instead"):
        window.find_browser(lambda _name: None)


def test_a_browser_in_its_usual_place_is_found(monkeypatch, tmp_path):
    place = tmp_path / "Google" / "Chrome" / "chrome.exe"
    place.parent.mkdir(parents=True)
    place.touch()
    monkeypatch.setattr(window, "_usual_places", lambda: [tmp_path / "none", place])
    assert window.find_browser(lambda _name: None) == str(place)


def test_the_page_opens_as_an_app(monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **options: started.append(command))
    window.open_window("/usr/bin/chromium", "http://127.0.0.1:7860")
    assert started == [["/usr/bin/chromium", "--app=http://127.0.0.1:7860"]]
