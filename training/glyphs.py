"""Printed letters and signs: glyphs of the free fonts that matplotlib ships, minus look-alikes.

DejaVu covers a dozen scripts, STIX adds the typefaces of print; both licences lie beside the fonts
in matplotlib's own folder, so nothing is bundled here.
"""

from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIZE = 28
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSans-Oblique.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSansMono-Oblique.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSerif-Italic.ttf",
    "STIXGeneral.ttf",
    "STIXGeneralBol.ttf",
    "STIXGeneralItalic.ttf",
    "STIXGeneralBolIta.ttf",
)
# Latin without O I l S Z B Q G and b o s z i g q j, and what no digit resembles of other scripts.
CHARACTERS = (
    "ACDEFHJKLMNPRTUVWXYacdefhkmnprtuvwxy"
    "ΓΔΛΞΠΣΦΨαγηκλμπρτφχψω"
    "ДЖИЛЦШЩЫЮЯджилпфцшщыюя"
    "אבגהחטכלמנעפצקשת"
    "ԱԲԸԹԺԻԽՀՁՂՃՄՆՈՊՋՍՐՓՔ"
    "აბგდევთლნჟრსტუფქღყშჩცძჭხჯ"
    "#%&@?*+=<>^~€£¥¶"
    "←↑→↔∀∃∇∈∏∑√∞∩≈≠≡≤≥⊂⊃⊕⊗⊥"
    "■▲▼◆★☆♠♣♥♦♪✓✗✚"
)
# Left out by eye, of those scripts: noughts with something in them (theta, omega), upright bars
# (exclamation mark, brackets), other shapes of digits (zeta, be, ze, Armenian to, Hebrew resh).
_LONGEST_SIDE = 20
_DRAWN_AT = 80  # points; shrunk afterwards, so that edges are as soft as those of a scan


def printed_glyphs(n: int, rng: np.random.Generator) -> NDArray[np.floating]:
    """Return printed letters and signs, shape (n, 28, 28), values 0-1."""
    bank = _bank()
    drawn = bank[rng.integers(0, len(bank), n)]
    contrast = rng.uniform(0.8, 1.6, (n, 1, 1))
    glyphs: NDArray[np.floating] = np.clip(drawn * contrast, 0, 1)
    return glyphs


@cache
def _bank() -> NDArray[np.floating]:
    """Return every character in every font that has it, shape (glyphs, 28, 28)."""
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    glyphs = []
    for name in FONTS:
        font = ImageFont.truetype(str(folder / name), _DRAWN_AT)
        missing = _drawn("\U0010fffd", font)
        for character in CHARACTERS:
            glyph = _drawn(character, font)
            if glyph is not None and (missing is None or not np.array_equal(glyph, missing)):
                glyphs.append(glyph)
    return np.stack(glyphs)


def _drawn(character: str, font: ImageFont.FreeTypeFont) -> NDArray[np.floating] | None:
    """Return a character, its longer side 20 pixels, in the middle; None if it has no ink."""
    canvas = Image.new("L", (3 * _DRAWN_AT, 3 * _DRAWN_AT))
    ImageDraw.Draw(canvas).text((_DRAWN_AT, _DRAWN_AT // 2), character, fill=255, font=font)
    box = canvas.getbbox()
    if box is None:
        return None
    ink = canvas.crop(box)
    scale = _LONGEST_SIDE / max(ink.size)
    size = (max(1, round(ink.width * scale)), max(1, round(ink.height * scale)))
    picture = Image.new("L", (SIZE, SIZE))
    shrunk = ink.resize(size, Image.Resampling.BOX)
    picture.paste(shrunk, ((SIZE - size[0]) // 2, (SIZE - size[1]) // 2))
    return np.asarray(picture, np.float32) / 255
