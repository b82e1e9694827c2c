"""Draw the icons of the extension and its modules: ``python Resources/draw_icons.py``.

Every icon is 128 x 128 pixels, as the extensions index asks, and drawn eight times larger first so that its edges
stay clean when Slicer shows it at 16 or 32 pixels.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIZE = 128
SCALE = 8
NIGHT, BONE, BRAIN, FOLD, BLOOD = "#14283c", "#f4f1e8", "#8fa9bd", "#5f7c93", "#e8483a"
PENUMBRA = "#f2c14e"


def _canvas() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    """A transparent canvas with the rounded dark tile that all icons share."""
    image = Image.new("RGBA", (SIZE * SCALE, SIZE * SCALE))
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle([0, 0, SIZE * SCALE - 1, SIZE * SCALE - 1], radius=26 * SCALE, fill=NIGHT)
    return image, draw


def _smooth(points: list[tuple[float, float]], closed: bool = True) -> list[tuple[float, float]]:
    """A Catmull-Rom curve through points given on the 128-pixel grid, in canvas pixels."""
    knots = np.array(points, dtype=float) * SCALE
    knots = np.vstack([knots[-1:], knots, knots[:2]]) if closed else np.vstack([knots[:1], knots, knots[-1:]])
    t = np.linspace(0, 1, 24, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(knots, knots[1:], knots[2:], knots[3:], strict=False):
        cubic = (3 * b - a - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2 + (c - a) * t + 2 * b
        pieces.append(cubic / 2)
    return [tuple(point) for point in np.vstack([*pieces, knots[-2:-1]] if not closed else pieces)]


def _stroke(draw: ImageDraw.ImageDraw, points: list[tuple[float, float]], width: float, colour: str) -> None:
    """A smooth line with round ends, width in pixels of the 128-pixel grid."""
    line = _smooth(points, closed=False)
    draw.line(line, fill=colour, width=round(width * SCALE), joint="curve")
    radius = width * SCALE / 2
    for x, y in line:
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)


def neuraxis_icon() -> Image.Image:
    """The axis of brain, brainstem and cord seen from the side, with the discs of the spine."""
    image, draw = _canvas()
    _stroke(draw, [(71, 62), (72, 78), (66, 92), (64, 104), (68, 118)], 9, BONE)
    cerebrum = [(16, 50), (20, 32), (36, 18), (60, 12), (86, 17), (106, 33), (112, 54), (100, 66), (78, 68), (62, 70)]
    cerebrum += [(50, 76), (34, 70), (22, 62)]
    draw.polygon(_smooth(cerebrum), fill=BONE)
    draw.polygon(_smooth([(78, 71), (94, 69), (106, 70), (103, 81), (91, 87), (79, 82)]), fill=BRAIN)
    for fold in (
        [(30, 56), (46, 58), (60, 50), (80, 46), (94, 52)],
        [(34, 38), (44, 30), (54, 38), (64, 32)],
        [(66, 18), (72, 28), (84, 28), (92, 38)],
    ):
        _stroke(draw, fold, 4.5, FOLD)
    for x, y in ((48, 90), (46, 103), (50, 116)):
        draw.rounded_rectangle([v * SCALE for v in (x - 13, y - 4, x + 9, y + 4)], radius=4 * SCALE, fill=BLOOD)
    return image


def hemorrhage_icon() -> Image.Image:
    """An axial head CT slice with an outlined bleed."""
    image, draw = _canvas()
    draw.ellipse([v * SCALE for v in (19, 9, 109, 119)], fill=BONE)
    draw.ellipse([v * SCALE for v in (28, 18, 100, 110)], fill=BRAIN)
    _stroke(draw, [(64, 22), (64, 44)], 4, FOLD)
    _stroke(draw, [(64, 86), (64, 106)], 4, FOLD)
    for side in (-1, 1):
        horn = [(64 + side * x, y) for x, y in ((3, 54), (10, 47), (15, 43), (11, 53), (7, 64), (11, 76), (5, 70))]
        draw.polygon(_smooth(horn), fill=NIGHT)
    bleed = [(73, 62), (77, 49), (86, 46), (93, 56), (94, 68), (87, 79), (77, 76)]
    draw.polygon(_smooth(bleed), fill=BLOOD)
    _stroke(draw, [*bleed, bleed[0]], 3, "#ffffff")
    return image


def stroke_icon() -> Image.Image:
    """An axial brain with core and penumbra on one side, under the curve of a bolus."""
    image, draw = _canvas()
    draw.ellipse([v * SCALE for v in (19, 9, 109, 119)], fill=BONE)
    draw.ellipse([v * SCALE for v in (25, 15, 103, 113)], fill=BRAIN)
    _stroke(draw, [(64, 19), (64, 109)], 4, FOLD)
    penumbra = [(70, 44), (80, 32), (93, 42), (99, 60), (96, 79), (84, 88), (72, 78), (69, 60)]
    draw.polygon(_smooth(penumbra), fill=PENUMBRA)
    draw.polygon(_smooth([(77, 56), (85, 48), (93, 58), (91, 71), (82, 75)]), fill=BLOOD)
    bolus = [(26, 86), (38, 85), (44, 66), (49, 44), (54, 62), (61, 79), (74, 84), (102, 86)]
    _stroke(draw, bolus, 5, NIGHT)
    _stroke(draw, bolus, 2.5, "#ffffff")
    return image


def disc_icon() -> Image.Image:
    """A lumbar spine from the side, its discs marked by named points."""
    image, draw = _canvas()
    centres = [(59, 14), (53, 33), (50, 54), (53, 75), (64, 95)]
    turns = [-14.0, -8.0, 0.0, 10.0, 24.0]
    for (x, y), turn in zip(centres, turns):
        corners = [(-17, -7), (0, -6), (17, -7), (16, 0), (17, 7), (0, 6), (-17, 7), (-16, 0)]
        cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        draw.polygon(_smooth([(x + cos * u - sin * v, y + sin * u + cos * v) for u, v in corners]), fill=BONE)
    draw.polygon(_smooth([(69, 104), (88, 100), (98, 113), (94, 124), (80, 118)]), fill=BONE)
    _stroke(draw, [(88, 12), (80, 34), (77, 56), (82, 78), (96, 96)], 7, FOLD)
    discs = [((a + c) / 2, (b + d) / 2) for (a, b), (c, d) in pairwise(centres)] + [(73, 105)]
    _stroke(draw, discs, 2, PENUMBRA)
    for x, y in discs:
        draw.ellipse([v * SCALE for v in (x - 5, y - 5, x + 5, y + 5)], fill=BLOOD)
        draw.line([v * SCALE for v in (x - 9, y, x - 22, y)], fill=BLOOD, width=2 * SCALE)
    return image


def main() -> None:
    """Write every icon to its place in the tree."""
    root = Path(__file__).resolve().parents[1]
    places = {
        "Resources/Neuraxis.png": neuraxis_icon(),
        "Neuraxis/Resources/Icons/Neuraxis.png": neuraxis_icon(),
        "HemorrhageSeg/Resources/Icons/HemorrhageSeg.png": hemorrhage_icon(),
        "StrokeCTP/Resources/Icons/StrokeCTP.png": stroke_icon(),
        "SpineDiscLabel/Resources/Icons/SpineDiscLabel.png": disc_icon(),
    }
    for place, image in places.items():
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(path, optimize=True)


if __name__ == "__main__":
    main()
