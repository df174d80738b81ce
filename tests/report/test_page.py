"""The page: whole, self-contained, escaped, reachable."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_studies import Study, answers, values

from transference.core.records import Finding
from transference.report import charts
from transference.report.page import render
from transference.report.summary import summarise

EVIL = "<script>alert('x')</script>&\"'"


def _study(budgets=(2, "all"), seeds=2, controls=("shuffle",), rows=30, **task):
    rng = np.random.default_rng(0)
    study = Study(primary="audio", secondary=["text"], **task)
    history = {"update": [1, 2, 3], "supervised": [3.0, 1.0, 0.01], "held out": [1.0, 0.9, 0.8]}
    for budget in budgets:
        for arm in ("unimodal", "transfer.distillation", "fusion.late"):
            for control in (None, *(controls if arm.startswith("transfer") else ())):
                for seed in range(seeds):
                    right = rng.random(rows) < (0.9 if arm.startswith("transfer") and not control else 0.5)
                    study.add(arm, seed, answers(right), control=control, budget=budget, history=history)
    study.add("induction.co_training", 0, None, status="failed", error="ValueError: boom\n  line 3", budget=budgets[0])
    return study


def _page(study):
    return render(summarise(study.records, study.predictions), study.records)


class _Reader(HTMLParser):
    VOID = ("meta", "line", "circle", "rect", "path", "polygon", "polyline", "wbr")

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.attributes = [], [], set(), [], []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append((tag, given))
        self.attributes += [(tag, name, value) for name, value in attrs]
        if "id" in given:
            assert given["id"] not in self.ids
            self.ids.add(given["id"])
        if tag == "a":
            self.links.append(given["href"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _read(page):
    reader = _Reader()
    reader.feed(re.sub(r"<(\w+)([^>]*)/>", r"<\1\2>", page))
    return reader


def test_every_part_is_there_and_the_verdict_is_first():
    study = _study()
    page = _page(study)
    summary = summarise(study.records, study.predictions)
    assert 0 < page.index('class="verdict"') < page.index('id="data"') < page.index('id="gains"')
    assert summary["verdict"] in page
    for text in ("Controls", "Label efficiency", "Training curves", "Cost against gain", "How to repeat a row"):
        assert f">{text}</h2>" in page
    assert "1 of 17 cells have no score." in page
    assert "failed: ValueError: boom" in page
    assert "rm -r runs/small/00000004 runs/small/00000005\ntransference run study.toml" in page


def test_it_is_well_formed_and_its_anchors_lead_somewhere():
    reader = _read(_page(_study()))
    assert reader.open == []
    assert {link.removeprefix("#") for link in reader.links} <= reader.ids
    assert all(link.startswith("#") for link in reader.links)


def test_nothing_is_loaded_and_the_policy_allows_only_its_own_style():
    page = _page(_study())
    assert "http://" not in page
    assert "https://" not in page
    assert "@import" not in page
    assert "url(" not in page
    reader = _read(page)
    assert {tag for tag, _ in reader.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    assert not [name for _, name, _ in reader.attributes if name == "style" or name.startswith("on")]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_text_from_data_is_escaped_everywhere():
    study = Study(primary=EVIL, secondary=[EVIL + "2"])
    study.task["classes"] = [EVIL, "b"]
    for seed in (0, 1):
        for budget in (2, f"{EVIL}=3"):
            history = {"update": [1, 2], EVIL: [1.0, 2.0]}
            study.add("unimodal", seed, answers([1, 0, 1, 0]), budget=budget, history=history)
            finding = (Finding(EVIL, 1.0, unit=EVIL, of={EVIL: EVIL}),)
            study.add(EVIL, seed, answers([1, 1, 1, 0]), method=EVIL, budget=budget, history=history, findings=finding)
            study.add(EVIL, seed, answers([1, 0, 0, 0]), method=EVIL, budget=budget, control=EVIL)
    study.add(EVIL, 2, None, method=EVIL, status="failed", error=EVIL + "\n" + EVIL)
    page = _page(study)
    assert "<script" not in page
    assert "alert(&#39;x&#39;)" in page
    reader = _read(page)
    assert reader.open == []
    assert not [name for _, name, _ in reader.attributes if name.startswith("on") or "alert" in name]


def test_charts_have_words_and_tables_have_headers():
    reader = _read(_page(_study()))
    outer = [given for tag, given in reader.tags if tag == "svg" and "role" in given]
    assert len(outer) > 10
    assert all(given["role"] == "img" and given["aria-label"].strip() for given in outer)
    assert all(given.get("scope") in ("col", "row") for tag, given in reader.tags if tag == "th")
    regions = [given for _, given in reader.tags if given.get("class") == "scroll"]
    assert regions
    assert all(given["tabindex"] == "0" and given["aria-label"] for given in regions)
    assert ("a", {"class": "skip", "href": "#gains"}) in reader.tags
    assert any(given.get("name") == "viewport" for tag, given in reader.tags if tag == "meta")


def test_the_same_page_each_time():
    study = _study()
    assert _page(study) == _page(study)


def test_a_study_of_500_cells_stays_under_3_mb():
    study = _study(budgets=(1, 2, 4, 10, "all"), seeds=20, controls=("constant", "noise", "shuffle"), rows=10)
    assert len(study.records) > 500
    assert len(_page(study).encode()) < 3_000_000


def test_a_study_of_which_nothing_finished_still_has_a_page():
    study = Study()
    study.add("unimodal", 0, None, status="out_of_memory", error="no room")
    page = _page(study)
    assert "out of memory: no room" in page
    assert _read(page).open == []


def test_one_budget_one_seed_no_control_and_a_regression():
    study = Study("mae")
    study.add("unimodal", 0, values([0.5, 0.7, 0.1]))
    study.add("transfer.distillation", 0, values([0.2, 0.4, 0.1]))
    page = _page(study)
    assert "One label budget: there is no curve." in page
    assert "No control was run." in page
    assert "One seed: the intervals are about test rows only" in page


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]), (-12, 31, [-10.0, 0.0, 10.0, 20.0, 30.0]), (3, 3, [3])],
)
def test_ticks_are_round_numbers(low, high, expected):
    assert charts.ticks(low, high) == expected


def test_the_forest_puts_values_where_they_belong():
    task = {"metric": "accuracy", "kind": "classification"}
    common = {"control": None, "primary_only": False, "needs_all_at_test": False, "reference": "unimodal"}
    common |= {"gain_semi_seeds": 3}
    low = {"arm": "a", "gain_semi": 0.0, "gain_semi_low": -0.1, "gain_semi_high": 0.1, "p_semi_adjusted": 1.0}
    high = {"arm": "b", "gain_semi": 0.2, "gain_semi_low": 0.1, "gain_semi_high": 0.3, "p_semi_adjusted": 0.01}
    found = charts.forest([low | common, high | common], task)
    assert [row["arm"] for row in found["rows"]] == ["b", "a"]
    assert [row["tone"] for row in found["rows"]] == ["good", "plain"]
    # -0.1 to 0.3 lie on 3 % to 97 % of the width
    assert found["zero"] == found["rows"][1]["at"] == pytest.approx(26.5)
    assert [found["rows"][0][end] for end in ("low", "at", "high")] == pytest.approx([50, 73.5, 97])
    few = charts.forest([low | common, high | common | {"gain_semi_seeds": 2}], task)
    assert [row["tone"] for row in few["rows"]] == ["plain", "plain"]  # two seeds tell nothing from 0


def test_only_arms_that_compete_are_circles_and_filled():
    study = _study(budgets=(2,), seeds=4)
    for seed in range(4):
        study.add("weak", seed, answers([0] * 30), method="unimodal")
    entries = summarise(study.records, study.predictions)["entries"]
    rows = charts.forest(entries, {"metric": "accuracy", "kind": "classification"})["rows"]
    assert {row["arm"]: (row["shape"], row["tone"]) for row in rows} == {
        "transfer.distillation": ("circle", "good"),
        "fusion.late": ("diamond", "plain"),
        "weak": ("square", "plain"),
    }
    assert "can not win, are not tested, and stay hollow" in " ".join(_page(study).split())


def test_a_value_without_an_interval_is_a_mark_alone():
    study = Study()
    for budget in (2, "all"):
        for seed in range(3):
            for arm in ("unimodal", "a"):
                study.add(arm, seed, answers([1] * 20), budget=budget)
            study.add("a", seed, answers([1] * 20), budget=budget, control="shuffle")
    summary = summarise(study.records, study.predictions)
    (row,) = charts.forest([each for each in summary["entries"] if each["budget"] == 2], summary["task"])["rows"]
    assert row["low"] == row["at"] == row["high"]
    assert row["text"] == "+0.0"
    page = _page(study)
    assert "None" not in page
    assert "<td>100.0</td>" in page


def test_a_control_chart_shows_the_arm_and_all_its_controls():
    study = _study(budgets=(2,), controls=("noise", "shuffle"))
    summary = summarise(study.records, study.predictions)
    (group,) = charts.controls(summary["entries"], summary["task"])["rows"]
    assert [(line["name"], line["shape"]) for line in group["lines"]] == [
        ("transfer.distillation", "circle"),
        ("noise", "square"),
        ("shuffle", "triangle"),
    ]
    assert "That is more than the gain where a control misleads" in " ".join(_page(study).split())


def test_an_efficiency_panel_has_the_curve_of_the_baseline_beside_its_own():
    study = Study()
    for budget, weak, strong in ((2, [1, 0, 0, 0], [1, 1, 0, 0]), ("all", [1, 1, 0, 0], [1, 1, 1, 0])):
        study.add("unimodal", 0, answers(weak), budget=budget)
        study.add("a", 0, answers(strong), budget=budget)
    summary = summarise(study.records, study.predictions)
    (panel,) = charts.efficiency(summary["entries"], [2, "all"], summary["task"])
    (_, low), (_, middle) = panel["base"]
    assert (
        panel["line"][0][1] == middle < low
    )  # down is better in a drawing: own 50 % is the baseline's with all labels
    assert panel["line"][1][1] < middle


def test_the_cost_chart_puts_the_reference_at_0():
    study = _study(budgets=(2,))
    summary = summarise(study.records, study.predictions)
    seconds = {(arm, "2"): 1.0 for arm in ("unimodal", "transfer.distillation")}
    found = charts.cost(summary["entries"], seconds, summary["task"])
    place = {dot["arm"]: dot["y"] for dot in found["dots"]}
    assert place["unimodal"] == found["zero"]
    assert place["transfer.distillation"] < found["zero"]


def _cells(page, name):
    """The texts of a row of the table of numbers."""
    row = re.search(rf'<th scope="row">{re.escape(name)}</th>(.*?)</tr>', page.replace("<wbr>", ""), re.DOTALL)
    return re.findall(r"<td[^>]*>(.*?)</td>", row.group(1), re.DOTALL)


def test_the_table_names_controls_and_has_both_gains():
    study = Study()
    for seed in range(3):
        study.add("unimodal", seed, answers([1, 0, 0, 0]))
        study.add("trees", seed, answers([1, 1, 0, 0]), method="unimodal")
        study.add("a", seed, answers([1, 1, 1, 0]))
        study.add("a", seed, answers([1, 0, 0, 0]), control="shuffle")
    page = _page(study).partition('id="everything"')[2]
    assert "Gain over unimodal" in page
    assert "Gain over trees" in page
    _, mean, gain, _, over_trees, *_ = _cells(page, "a")
    assert (mean[:4], gain[:5], over_trees[:5]) == ("75.0", "+50.0", "+25.0")
    assert _cells(page, "shuffle")[1].startswith("25.0")


def test_a_measure_along_a_scale_is_drawn_for_the_arm_and_its_controls_and_not_told_again():
    study = Study()
    for seed in range(2):
        for control, factor in ((None, 1.0), ("shuffle", 0.5)):
            along = [Finding("fresh", factor * (1 - x) + 0.1 * seed, of={"known": f"{x}"}) for x in (0, 0.25, 0.5, 1.0)]
            few = [Finding("hits", 0.3, of={"k": k}) for k in ("2", "5")]
            words = [Finding("found", 0.2, of={"to": name}) for name in ("a", "b", "c", EVIL)]
            study.add("a", seed, answers([1, 0]), control=control, findings=(*along, *few, *words))
    page = _page(study)
    assert '<a href="#along">Trade-offs</a>' in page
    drawn, _, told = page.partition('id="along"')[2].partition('id="everything"')
    assert ">At 2 labels per class: fresh against known</summary>" in drawn
    assert 'aria-label="a: a: 1.05 at 0, 0.8 at 0.25, 0.55 at 0.5, 0.05 at 1; shuffle: 0.55 at 0' in drawn
    assert drawn.count("<polyline") == 2
    assert "<td>fresh</td>" not in told
    assert told.count("<td>hits</td>") == 2 * 2
    assert told.count("<td>found</td>") == 2 * 4
    assert "Trade-offs" not in _page(_study())


def test_a_curve_along_a_scale_lies_where_its_numbers_say():
    found = [
        {"arm": "a", "control": None, "of": {"x": str(x)}, "mean": mean}
        for x, mean in ((1.0, 0.0), (0.0, 2.0), (0.5, 1.0))
    ]
    (panel,) = charts.along(found)
    (line,) = panel["lines"]
    (first, top), (_, middle), (last, bottom) = line["points"]  # in order of the scale, whatever that of the measures
    assert (first, last) == (charts.LEFT, charts.RIGHT)
    assert charts.TOP < top < bottom < charts.BOTTOM
    assert middle == pytest.approx((top + bottom) / 2, abs=0.02)


def test_a_huge_interval_does_not_squash_the_rest():
    task = {"metric": "accuracy", "kind": "classification"}
    common = {"control": None, "primary_only": False, "needs_all_at_test": False, "reference": "unimodal"}
    common |= {"gain_semi_seeds": 3}
    wide = {"arm": "a", "gain_semi": 0.1, "gain_semi_low": -9.0, "gain_semi_high": 9.2, "p_semi_adjusted": 1.0}
    found = charts.forest([wide | common], task)
    assert (found["rows"][0]["low"], found["rows"][0]["high"]) == (3.0, 97.0)
    assert found["rows"][0]["at"] - found["zero"] > 20


def test_what_is_known_of_the_data_is_shown_and_escaped():
    study = _study()
    about = {
        "name": "rows <b>",
        "rows": 9,
        "labelled": 7,
        "modalities": {"photo": {"kind": "image", "shape": [3, 24, 24], "present": 8}},
        "source": {"licence": "CC BY 4.0"},
        "notes": ["Two rows are alike."],
    }
    page = render(summarise(study.records, study.predictions, about), study.records)
    for shown in (
        "rows &lt;b&gt;",
        "9, 7 with a label",
        "image 3x24x24, in 8 rows",
        "CC BY 4.0",
        "Two rows are alike.",
    ):
        assert shown in page
