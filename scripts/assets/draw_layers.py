"""Draw the layers of the package from the import contract in setup.cfg: ``python scripts/assets/draw_layers.py``."""

import argparse
from configparser import ConfigParser
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WIDTH, HEIGHT, GAP, FONT = 900, 26, 6, 12


def layers(config: Path) -> list[list[str]]:
    """Names of the modules in each layer, the highest first."""
    parser = ConfigParser()
    parser.read(config)
    lines = parser["importlinter:contract:flow"]["layers"].split("\n")
    split = [line.replace(":", "|").split("|") for line in lines if line.strip()]
    return [[name.strip().removeprefix("alignsam_sb3.") for name in line] for line in split]


def draw(rows: list[list[str]]) -> str:
    """An SVG with a row for each layer; a module imports from rows below its own."""
    height = len(rows) * (HEIGHT + GAP) + GAP
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="{FONT}">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
    ]
    for k, row in enumerate(rows):
        y, width = GAP + k * (HEIGHT + GAP), (WIDTH - GAP) / len(row) - GAP
        for j, name in enumerate(row):
            x = GAP + j * (width + GAP)
            out.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width:.0f}" height="{HEIGHT}" rx="4" fill="#dbe7f3" stroke="#5b84ad"/>'
            )
            out.append(f'<text x="{x + width / 2:.0f}" y="{y + 17}" text-anchor="middle">{escape(name)}</text>')
    return "\n".join([*out, "</svg>", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "layers.svg")
    args = parser.parse_args()
    args.out.write_text(draw(layers(ROOT / "setup.cfg")))
