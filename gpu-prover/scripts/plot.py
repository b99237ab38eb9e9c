#!/usr/bin/env python3
"""Draws docs/benchmarks/*.svg from docs/benchmarks/*.csv. Standard library only.

    gpu-prover/scripts/plot.py [FOLDER]

`proofs.csv`: log2,gpu_s,cpu_s   -> proofs.svg, seconds of a proof by padded height, both axes logarithmic.
`stages.csv`: log2,step,ms       -> stages.svg, where the time goes, one bar a height.
"""

import csv
import math
import sys
from pathlib import Path

FONT = 'font-family="system-ui, sans-serif" font-size="13"'
COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e", "#9498a0"]


def svg(width, height, parts):
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {FONT}>\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n{body}\n</svg>\n'
    )


def text(x, y, words, anchor="start", colour="#333"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def proofs(rows):
    width, height, left, right, top, bottom = 760, 420, 70, 120, 30, 50
    heights = [int(row["log2"]) for row in rows]
    low, high = 0.01, 1000
    x = lambda log2: left + (log2 - heights[0]) / (heights[-1] - heights[0]) * (width - left - right)
    y = lambda s: height - bottom - math.log(s / low) / math.log(high / low) * (height - top - bottom)
    parts = [text(left, 18, "Seconds for one proof, trace not counted")]
    for exponent in range(-2, 4):
        value = 10.0**exponent
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        parts.append(text(left - 8, y(value) + 4, f"{value:g}", "end"))
    for log2 in heights:
        parts.append(text(x(log2), height - bottom + 20, f"2^{log2}", "middle"))
    parts.append(text((left + width - right) / 2, height - 10, "padded height", "middle"))
    for column, name, colour in [("cpu_s", "CPU, 16 cores", COLOURS[1]), ("gpu_s", "one H100", COLOURS[0])]:
        points = [(int(row["log2"]), float(row[column])) for row in rows if row[column]]
        path = " ".join(f"{x(log2):.1f},{y(s):.1f}" for log2, s in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x(log2):.1f}" cy="{y(s):.1f}" r="3.5" fill="{colour}"/>' for log2, s in points]
        log2, s = points[-1]
        parts.append(text(x(log2) + 8, y(s) + 4, f"{name}", colour=colour))
        parts.append(text(x(log2) + 8, y(s) + 20, f"{s:g} s", colour=colour))
    return svg(width, height, parts)


def stages(rows):
    width, left, top, bar = 760, 60, 40, 46
    by_height = {}
    for row in rows:
        by_height.setdefault(int(row["log2"]), []).append((row["step"], float(row["ms"])))
    names = list(dict.fromkeys(row["step"] for row in rows))
    parts = [text(left, 20, "Where a proof spends its time (each step waited for)")]
    for line, (log2, steps) in enumerate(sorted(by_height.items())):
        total = sum(ms for _, ms in steps)
        at, y = left, top + line * (bar + 26)
        parts.append(text(left - 8, y + bar / 2 + 4, f"2^{log2}", "end"))
        for step, ms in steps:
            wide = ms / total * (width - left - 20)
            colour = COLOURS[names.index(step) % len(COLOURS)]
            parts.append(f'<rect x="{at:.1f}" y="{y}" width="{wide:.1f}" height="{bar}" fill="{colour}"><title>{step} {ms:g} ms</title></rect>')
            if wide > 34:
                parts.append(text(at + wide / 2, y + bar / 2 + 4, f"{ms:.0f}", "middle", "white"))
            at += wide
        parts.append(text(width - 20, y + bar + 16, f"{total:.0f} ms", "end"))
    legend = top + len(by_height) * (bar + 26) + 14
    for i, name in enumerate(names):
        x, y = left + (i % 3) * 230, legend + (i // 3) * 22
        parts.append(f'<rect x="{x}" y="{y - 11}" width="12" height="12" fill="{COLOURS[i % len(COLOURS)]}"/>')
        parts.append(text(x + 18, y, name))
    return svg(width, legend + (len(names) + 2) // 3 * 22 + 10, parts)


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parents[2] / "docs/benchmarks"
    for name, draw in [("proofs", proofs), ("stages", stages)]:
        with open(folder / f"{name}.csv", newline="") as file:
            rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
        (folder / f"{name}.svg").write_text(draw(rows))


if __name__ == "__main__":
    main()
