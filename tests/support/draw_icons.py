"""Draws the PNG icons of the page after ``icon.svg``: run it when the mark changes."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw

FOLDER = Path(__file__).resolve().parents[2] / "ui" / "board"
GREEN = (15, 107, 92, 255)
BARS = ((7, 7, 18, 1.0), (7, 14, 12, 0.75), (7, 21, 7, 0.5))  # x, y, width, opacity, of 32
FINER = 4  # drawn larger, then scaled down, for smooth edges


def draw(size: int, *, maskable: bool) -> Image.Image:
    """The mark; a maskable one fills its square and keeps to the inner four fifths."""
    whole = size * FINER
    image = Image.new("RGBA", (whole, whole), GREEN if maskable else (0, 0, 0, 0))
    pen = ImageDraw.Draw(image)
    unit, shift = whole / 32, 0.0
    if maskable:
        unit, shift = unit * 0.75, whole * 0.125
    else:
        pen.rounded_rectangle((0, 0, whole - 1, whole - 1), radius=8 * unit, fill=GREEN)
    for x, y, width, opacity in BARS:
        blend = tuple(round(255 * opacity + part * (1 - opacity)) for part in GREEN[:3])
        box = (x * unit + shift, y * unit + shift)
        end = ((x + width) * unit + shift, (y + 4) * unit + shift)
        pen.rounded_rectangle((*box, *end), radius=2 * unit, fill=(*blend, 255))
    return image.resize((size, size), Image.Resampling.LANCZOS)


def main() -> None:
    draw(192, maskable=False).save(FOLDER / "icon-192.png", optimize=True)
    draw(512, maskable=False).save(FOLDER / "icon-512.png", optimize=True)
    draw(512, maskable=True).save(FOLDER / "icon-maskable-512.png", optimize=True)


if __name__ == "__main__":
    main()
