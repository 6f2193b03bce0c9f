"""The report on disk: what its files hold, that they need nothing from outside, and that hostile names stay words."""

import base64
import csv
import html
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rlplatform.evaluation import figures, tables
from rlplatform.evaluation.analysis import analyse
from rlplatform.evaluation.document import to_svg, write_report
from rlplatform.evaluation.groups import Group, gather, published_group
from run_files import make_run

AGENTS = ["bbf_rr2", "iris", "simple"]
HOSTILE = "<script>alert(1)</script> | a_b & 100% $x$ {y} \\end"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Two and three seeds of two games beside published agents, one of them of means alone."""
    root = tmp_path_factory.mktemp("report")
    for seed, mean in ((1, -15.0), (2, -18.0), (3, -12.0)):
        make_run(root / "runs" / f"seed_{seed}", seed=seed, mean=mean)
    for seed in (1, 2):
        make_run(root / "runs" / f"boxing_{seed}", task="atari/Boxing", seed=seed, mean=3.0 + seed, scale=(0.1, 12.1))
    an = analyse(gather([root / "runs"], ["spr", "bbf_rr8", "bbf_rr2"]), reps=200, few_seeds=True)
    write_report(an, root / "out", command="rlplatform report <runs>", reps=200)
    return an, root / "out"


class Page(HTMLParser):
    """Everything that a browser would fetch or run, the ids, the links, and whether tags close."""

    VOID = frozenset({"meta", "link", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        for name, value in attrs:
            if name in {"src", "srcset", "data"} or (name == "href" and tag != "a"):
                self.fetched.append(value)
            if name == "href" and tag == "a":
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            assert not name.startswith("on")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_all_files_are_there(report) -> None:
    an, out = report
    drawn = list(figures.figures(an))
    assert drawn == ["aggregates", "profiles", "improvement", "ranks", "tasks", "curves", "task_curves"]
    want = {"report.html", "report.md", "tables.csv", "tables.tex", "figures"}
    assert {path.name for path in out.iterdir()} == want
    assert {path.name for path in (out / "figures").iterdir()} == {
        f"{name}.{kind}" for name in drawn for kind in ("png", "svg")
    }
    for name in drawn:
        ET.parse(out / "figures" / f"{name}.svg")  # noqa: S314  # our own
        with Image.open(out / "figures" / f"{name}.png") as image:
            assert min(image.size) > 200


def test_the_page_needs_no_network_and_no_script(report) -> None:
    text = (report[1] / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert all(link.startswith("data:") for link in page.fetched)
    assert len(page.fetched) == 1 + 2 * 7  # an icon, and each figure wide and narrow
    assert not re.search(r"url\(|@import", text)
    assert {link.removeprefix("#") for link in page.links} == set(page.ids)
    for link in page.fetched[1:]:
        ET.fromstring(base64.b64decode(link.partition("base64,")[2]))  # noqa: S314
    assert len(text) < 3_000_000
    assert "rlplatform report &lt;runs&gt;" in text


def test_the_page_says_what_matters(report) -> None:
    an, out = report
    text = html.unescape((out / "report.html").read_text())
    for sentence in (*an.unlike, *an.unstated, *an.notes):
        assert sentence in text.replace("<b>", "").replace("</b>", "")
    assert "Unlike protocols, der (ours) against SPR: a life lost ends: stack and target against nothing" in " ".join(
        an.unlike
    )
    assert "Of BBF (replay ratio 8) only means are public" in text
    assert "numpy 2.4.0, torch 2.13.0, ale-py 0.12.1" in text
    assert "1.39 thread-h" in text  # 5,000 s of one thread
    assert text.count("0123456789</td>") == 5
    for group in an.groups:
        assert group.origin in text
    found = an.aggregates["spr"]["IQM"]
    assert f"{found.point:.3f} [{found.low:.3f}, {found.high:.3f}]" in text


def columns_agree(markdown: str) -> int:
    """The number of tables, each with as many cells in a row as in its head."""
    blocks = [block for block in markdown.split("\n\n") if block.startswith("| ")]
    for block in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1
    return len(blocks)


def test_markdown_and_its_pictures(report) -> None:
    an, out = report
    text = (out / "report.md").read_text()
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (out / picture).is_file()
    assert text.count("![") == 7
    assert columns_agree(text) == len(tables.tables(an))


def test_the_csv_has_every_number_to_full_precision(report) -> None:
    an, out = report
    rows = list(csv.DictReader((out / "tables.csv").read_text().splitlines()))
    assert list(rows[0]) == tables.CSV_COLUMNS
    by = {(row["table"], row["group"], row["against"], row["task"], row["measure"]): row for row in rows}
    assert len(by) == len(rows)
    for group in an.groups:
        for measure, found in an.aggregates[group.name].items():
            row = by["aggregates", group.name, "", "", measure]
            assert float(row["value"]) == found.point
            assert (row["low"] == "") == (found.low is None)
            if found.low is not None:
                assert (float(row["low"]), float(row["high"])) == (found.low, found.high)
        for task in an.tasks:
            assert float(by["tasks", group.name, "", task, "mean"]["value"]) == an.per_task[group.name][task].point
    for (a, b), chance in an.improvement.items():
        assert float(by["improvement", a, b, "", "P(group > against)"]["value"]) == chance.point
    assert sum(row["table"] == "profiles" for row in rows) == len(an.profiles) * len(an.taus)


def test_the_same_report_twice_is_the_same_bytes(report) -> None:
    an, out = report
    for name in ("improvement", "curves"):
        assert to_svg(figures.figures(an)[name][1](an)) == (out / "figures" / f"{name}.svg").read_bytes()
    again = analyse(an.groups, reps=200, few_seeds=True)
    assert tables.to_csv(again) == (out / "tables.csv").read_text()


def hostile() -> list[Group]:
    rng = np.random.default_rng(0)
    names = {f"{HOSTILE} {k}": rng.normal(size=4) for k in range(3)}
    return [
        Group(f"{HOSTILE}{g}", f"{HOSTILE}{g}", None, names, {"noops": HOSTILE + str(g)}, HOSTILE, ours=True)
        for g in range(2)
    ]


def test_hostile_names_stay_words(tmp_path) -> None:
    an = analyse(hostile(), reps=100)
    write_report(an, tmp_path, command=HOSTILE, reps=100)
    page = Page((tmp_path / "report.html").read_text())
    assert "script" not in page.tags
    assert page.open == []
    tex = (tmp_path / "tables.tex").read_text()
    body = re.sub(r"\\[&%_#${}]|\\text(asciitilde|asciicircum|backslash|less|greater|bar)\{\}|\$[-\\a-z]+\$", "", tex)
    for line in body.splitlines():
        if line.endswith("\\\\") and not line.startswith("\\"):
            assert not re.search(r"[%$#_<>|]", line)  # the last three are other letters in LaTeX's old fonts
    assert tex.count("\\begin{table}") == tex.count("\\end{table}") == 3
    assert "\\end " not in tex
    text = (tmp_path / "report.md").read_text()
    assert "<script>" not in re.sub(r"`[^`]*`", "", text)
    columns_agree(text)
    rows = list(csv.DictReader((tmp_path / "tables.csv").read_text().splitlines()))
    assert {row["group"] for row in rows} == {f"{HOSTILE}{g}" for g in range(2)}


def shown(axis, labels):
    """The tick labels that are drawn: those within the view."""
    low, high = sorted(axis.get_view_interval())
    return [
        label for tick, label in zip(axis.get_ticklocs(), labels, strict=False) if low - 1e-9 <= tick <= high + 1e-9
    ]


def test_a_name_is_no_formula() -> None:
    name = r"$\nosuch{$ a"
    an = analyse([Group(name, name, None, {name: np.arange(4.0), "b": np.arange(4.0)}, {}, "", ours=True)], reps=100)
    for _, draw in figures.figures(an).values():
        fig = draw(an, figures.WIDE)
        fig.canvas.draw()
        assert any(r"\nosuch" in text.get_text() for text in texts(fig))


def texts(fig):
    for legend in fig.legends:
        yield from legend.get_texts()
    for panel in fig.axes:
        if not panel.get_visible():
            continue
        labels = [*shown(panel.xaxis, panel.get_xticklabels()), *shown(panel.yaxis, panel.get_yticklabels())]
        legend = panel.get_legend()
        inside = [*panel.texts, *labels, panel.xaxis.label, panel.yaxis.label, *(legend.get_texts() if legend else [])]
        titles = [panel.title, panel._left_title, panel._right_title]
        yield from (text for text in [*inside, *titles] if text.get_visible() and text.get_text().strip())


@pytest.mark.parametrize("width", [figures.WIDE, figures.NARROW])
def test_all_words_of_all_figures_lie_within_them_and_labels_apart(report, width) -> None:
    for name, (_, draw) in figures.figures(report[0]).items():
        fig = draw(report[0], width)
        fig.canvas.draw()
        size = fig.canvas.get_width_height()
        for text in texts(fig):
            box = text.get_window_extent()
            assert box.x0 >= -1, (name, text.get_text())
            assert box.y0 >= -1, (name, text.get_text())
            assert box.x1 <= size[0] + 1, (name, text.get_text())
            assert box.y1 <= size[1] + 1, (name, text.get_text())
        if name in ("plasticity", "task_curves"):  # whose key is no part of a column
            widths = [panel.get_position().width for panel in fig.axes if panel.get_visible()]
            assert max(widths) < 1.3 * min(widths), name
        for panel in fig.axes:
            boxes = [label.get_window_extent() for label in panel.get_yticklabels() if label.get_text()]
            for a in range(len(boxes)):
                for b in range(a):
                    assert not boxes[a].shrunk(0.9, 0.9).overlaps(boxes[b].shrunk(0.9, 0.9)), (name, a, b)


def test_figures_show_the_numbers_of_the_analysis(report) -> None:
    an, _ = report
    iqm = figures.aggregates(an).axes[0]
    points = {tuple(map(float, c.get_offsets()[0])) for c in iqm.collections}
    assert points == {
        (an.aggregates[g.name]["IQM"].point, y) for y, g in enumerate(an.groups) if "IQM" in an.aggregates[g.name]
    }
    bars = sorted(tuple(line.get_xdata()) for line in iqm.lines)
    assert bars == sorted((of["IQM"].low, of["IQM"].high) for of in an.aggregates.values() if "IQM" in of)
    profile = figures.profiles(an).axes[0]
    for line, band in zip(profile.lines, an.profiles.values(), strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.column_stack([an.taus, band.point]))
    cells = figures.improvement(an).axes[0].images[0].get_array()
    names = [g.name for g in an.groups if not g.means]
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            assert (
                (np.ma.is_masked(cells[i, j]) or np.isnan(cells[i, j]))
                if i == j
                else cells[i, j] == an.improvement[a, b].point
            )
    colours = [figures.PALETTE[i] for i in range(4)]
    assert len(set(colours)) == 4
    assert len(set(figures.MARKERS)) == len(figures.PALETTE)


def test_the_rank_plot_shows_the_ranks_best_first(report) -> None:
    an, _ = report
    figure = figures.ranks(an)
    assert an.ranks is not None
    widths = np.array([bar.get_width() for bar in figure.axes[0].patches]).reshape(len(an.ranks.algorithms), -1)
    order = np.argsort(an.ranks.expected)
    np.testing.assert_allclose(widths, an.ranks.overall[order])
    np.testing.assert_allclose(widths.sum(1), 1.0)
    assert an.ranks.algorithms[order[0]] == "bbf_rr2"
    words = [text.get_text() for text in figure.axes[0].texts]
    assert f"{an.ranks.expected[order[0]]:.2f}" in words


@pytest.mark.parametrize(
    ("rank", "word"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"), (21, "21st")]
)
def test_ordinals(rank, word) -> None:
    assert figures._ordinal(rank) == word


def test_labels_are_spread_in_order() -> None:
    placed = figures.spread([0.5, 0.5, 0.52, 0.0, 1.0], 0.1, 0.0, 1.0)
    ordered = np.array(placed)[np.argsort([0.5, 0.5, 0.52, 0.0, 1.0], kind="stable")]
    assert np.all(np.diff(ordered) >= 0.1 - 1e-12)
    assert min(placed) >= 0.05 - 1e-12
    assert max(placed) <= 0.95 + 1e-12
    assert figures.spread([0.5, 0.5, 0.5], 0.1, 0, 1) == pytest.approx([0.5, 0.6, 0.7])
    assert figures.spread([], 0.1, 0, 1) == []
    assert figures.spread([0.3, 0.7], 0.1, 0, 1) == [0.3, 0.7]


def test_few_seeds_and_means_have_no_intervals() -> None:
    few = analyse([published_group("atari100k", "bbf_rr8"), published_group("atari100k", "iris")], reps=100)
    assert set(few.aggregates["bbf_rr8"]) == {"median", "mean"}  # an IQM of means is another number
    assert not few.aggregates["bbf_rr8"]["mean"].known
    assert list(few.profiles) == ["iris"]
    assert few.improvement == {}
    assert set(few.marks["iris"].values()) == {0}
    two = Group("two", "two", None, {"a": np.array([1.0, 2.0]), "b": np.arange(5.0)}, {}, "", ours=True)
    an = analyse([two], reps=100)
    assert not an.aggregates["two"]["IQM"].known
    assert not an.per_task["two"]["a"].known
    assert an.per_task["two"]["b"].known
    assert any("two has 2 runs on some tasks: an interval needs 3 of every task" in note for note in an.notes)
    assert analyse([two], reps=100, few_seeds=True).aggregates["two"]["IQM"].known
    one = Group("one", "one", None, {"a": np.array([1.0]), "b": np.arange(5.0)}, {}, "", ours=True)
    alone = analyse([one, two], reps=100, few_seeds=True)
    assert not alone.aggregates["one"]["IQM"].known  # one run drawn again and again has no spread
    assert alone.marks["two"]["a"] == 0


def test_a_report_on_means_alone(tmp_path) -> None:
    an = analyse([published_group("atari100k", "bbf_rr8"), published_group("atari100k", "storm")], reps=100)
    assert list(figures.figures(an)) == ["aggregates", "tasks"]
    write_report(an, tmp_path, reps=100)
    assert "In words" not in (tmp_path / "report.html").read_text()


def test_marks() -> None:
    low, high = np.arange(40.0), np.arange(40.0) + 30

    def marks(mine, theirs, **kind):
        a = Group("a", "a", None, {"x": np.asarray(mine, np.float64)}, {}, "", ours=True)
        b = Group("b", "b", None, {"x": np.asarray(theirs, np.float64)}, {}, "", ours=False, **kind)
        return analyse([a, b], reps=200).marks["b"]["x"]

    assert (marks(high, low), marks(low, high), marks(low, low + 1)) == (1, -1, 0)
    assert (marks([39.5], low), marks([-1.0], low), marks([20.0], low)) == (1, -1, 0)  # one run among many
    assert marks([1e9], low[:38]) == 0  # among few, its place says nothing
    assert marks(high, [5.0], means=True) == 0


def test_the_improvement_matrix_mirrors() -> None:
    an = analyse([published_group("atari100k", agent) for agent in AGENTS], reps=500)
    for (a, b), chance in an.improvement.items():
        other = an.improvement[b, a]
        assert chance.point + other.point == pytest.approx(1.0, abs=1e-12)
        assert chance.low + other.high == pytest.approx(1.0, abs=1e-12)
    assert len(an.improvement) == 6


def test_where_the_tables_lie(tmp_path: Path) -> None:
    groups = [published_group("gym", "mrq"), published_group("gym", "td7_fujimoto2025")]
    an = analyse(groups, reps=100)
    assert an.normalised
    assert an.aggregates["mrq"]["mean"].point == pytest.approx(1.46, abs=0.006)  # as the paper says
    write_report(an, tmp_path, reps=100)
    assert "Gym MuJoCo" in (tmp_path / "report.md").read_text()
