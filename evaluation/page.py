"""The HTML of a report: one file that needs no network, no script and no fonts but the reader's own."""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass

from rlplatform.evaluation.figures import PALETTE

STYLE = """
:root { --ink: #1f2328; --soft: #57606a; --line: #d8dee4; --faint: #f6f7f9; --warn: #9a3412; --warnbg: #fff7ed; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body { margin: 0; color: var(--ink); background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1088px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.015em; margin: 0 0 8px; text-wrap: balance; }
h2 { font-size: 20px; line-height: 1.3; letter-spacing: -.01em; margin: 52px 0 12px; padding-top: 20px; border-top: 1px solid var(--line); }
p { margin: 0 0 12px; max-width: 76ch; }
.lede { color: var(--soft); margin-bottom: 20px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; font-size: 14px; margin: 18px 0 0; }
nav a { color: #0550ae; text-decoration: none; padding: 4px 0; } nav a:hover { text-decoration: underline; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0 8px; padding: 0; list-style: none; }
.facts li { border: 1px solid var(--line); border-radius: 10px; padding: 12px 14px; font-size: 13.5px; color: var(--soft); line-height: 1.4; }
.facts b { display: block; color: var(--ink); font-size: 25px; letter-spacing: -.02em; font-variant-numeric: tabular-nums; }
.facts .who { display: block; color: var(--ink); font-weight: 600; }
.warn { border-left: 4px solid #d97706; background: var(--warnbg); padding: 12px 16px; border-radius: 0 8px 8px 0; margin: 16px 0; }
.warn p { margin: 0; max-width: none; } .warn p + p { margin-top: 8px; } .warn b { color: var(--warn); }
.verdicts { padding: 0; list-style: none; margin: 0; } .verdicts li { padding: 8px 0 8px 14px; border-left: 4px solid var(--line); margin-bottom: 8px; max-width: 90ch; }
figure { margin: 16px 0 8px; } figure img { display: block; width: 100%; height: auto; } figcaption, .note { color: var(--soft); font-size: 13.5px; margin-top: 8px; max-width: 110ch; }
.scroll { overflow-x: auto; margin: 16px 0 4px; -webkit-overflow-scrolling: touch; } .scroll:focus { outline: 2px solid #0550ae33; }
table { border-collapse: collapse; font-size: 13.5px; line-height: 1.4; min-width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; vertical-align: bottom; border-bottom: 2px solid #afb8c1; }
.number { text-align: right; vertical-align: top; font-variant-numeric: tabular-nums; white-space: nowrap; padding: 7px 0 7px 14px; } th.number { white-space: normal; }
td:first-child, th:first-child { position: sticky; left: 0; background: #fff; } td:first-child { font-weight: 500; }
td.text { min-width: 150px; padding-left: 14px; } th.text { padding-left: 14px; } .best { font-weight: 700; } .up { color: #9a4a00; } .down { color: #0a4f86; }
.dense table { font-size: 12.5px; } .dense .number { padding: 7px 14px 7px 6px; } .mark { display: inline-block; width: 14px; margin-right: -14px; text-align: center; }
.unlike { color: var(--warn); background: var(--warnbg); font-weight: 600; } .faint { color: #7d8590; }
.chip { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 7px; }
code { font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; background: var(--faint); border-radius: 6px; padding: 2px 6px; overflow-wrap: anywhere; }
footer { margin-top: 56px; padding-top: 16px; border-top: 1px solid var(--line); color: var(--soft); font-size: 13.5px; }
@media (max-width: 640px) { main { padding: 24px 16px 56px; } h1 { font-size: 24px; } h2 { font-size: 18px; margin-top: 40px; } .facts { grid-template-columns: 1fr 1fr; gap: 10px; } .facts b { font-size: 21px; }
  table { font-size: 13px; } th:first-child, td:first-child { min-width: 118px; max-width: 140px; padding-right: 10px; } .words td, .words th { min-width: 128px; } .words td:last-child { min-width: 200px; overflow-wrap: anywhere; } .words td.number, .words th.number { min-width: 0; } .words td.text { min-width: 260px; } }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, tr { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    anchor: str
    title: str
    body: str  # HTML


def page(title: str, lede: str, facts: str, sections: Sequence[Section], footer: str) -> str:
    """The whole document. `facts` and the sections' bodies are HTML, everything else is text."""
    chips = "\n".join(f".g{i} {{ background: {PALETTE[i % len(PALETTE)]}; }}" for i in range(64))
    links = "".join(f'<a href="#{section.anchor}">{html.escape(section.title)}</a>' for section in sections)
    body = "\n".join(
        f'<section id="{section.anchor}"><h2>{html.escape(section.title)}</h2>\n{section.body}</section>'
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}{chips}\n</style>\n</head>\n<body>\n<main>\n"
        f'<header><h1>{html.escape(title)}</h1>\n<p class="lede">{html.escape(lede)}</p>\n{facts}\n<nav>{links}</nav></header>\n'
        f"{body}\n<footer>{footer}</footer>\n</main>\n</body>\n</html>\n"
    )


def picture(wide: bytes, narrow: bytes, shows: str, caption: str) -> str:
    """A figure that is drawn anew for narrow screens: two SVGs, inside the page."""
    images = [f"data:image/svg+xml;base64,{base64.b64encode(svg).decode()}" for svg in (narrow, wide)]
    return (
        f'<figure><picture><source media="(max-width: 640px)" srcset="{images[0]}"><img src="{images[1]}" '
        f'alt="{html.escape(shows)}"></picture><figcaption>{html.escape(caption)}</figcaption></figure>\n'
    )


def paragraphs(sentences: Sequence[str]) -> str:
    """Each a paragraph."""
    return "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
