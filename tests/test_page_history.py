"""The page's history and its processes over clocks: what they claim, and what they leave out. Every number is planted."""

from __future__ import annotations

import re

import page_data
import pytest

from evosdpa.page import clock_charts, clocks, history, history_charts, render
from page_tools import section, whole, without_bundle


def view(*versions, mode="warm", **more):
    return history.history(whole(page_data.on_h200(history=list(versions), **more)), mode)


FIRST = page_data.version("v1", 1, 6.0, first=True)


# Sentences of the history

@pytest.mark.parametrize("more, said", [
    (dict(kernel=("source", "binary"), verdict="faster"), "takes 5.00 µs after 6.00 µs, 17\u202f% less, and that is faster: only its kernel changed (source)"),
    (dict(kernel=("binary",), verdict="undecided"), "and that is not told from what two runs differ by: only its kernel changed (binary)"),
    (dict(kernel=("source", "binary"), measuring=("protocol", "harness")),
     "but beside its kernel (source) the measurement changed too (protocol and harness), so it is not the kernel’s alone"),
    (dict(measuring=("judging",)), "but the kernel is the same and only the measurement changed (judging), so it is no gain or loss of the kernel"),
    (dict(), "and nothing changed, so it is what two runs differ by")])
def test_a_difference_is_laid_to_what_changed(more, said):
    assert said in history.answer(view(FIRST, page_data.version("v1", 2, 5.0, before=6.0, **more)))


@pytest.mark.parametrize("measuring", [("protocol",), ("harness", "judging"), ("machine",)])
def test_a_change_of_the_measurement_is_never_a_gain_of_the_kernel(measuring):
    found = view(FIRST, page_data.version("v1", 2, 3.0, kernel=("source", "binary"), measuring=measuring, before=6.0))
    assert "faster" not in history.answer(found) and "not the kernel’s alone" in history.answer(found)
    [segment] = history_charts._segments(found.tracks[0])
    assert segment["same"] is False, "the line to it is dashed"


def test_one_version_each_is_no_change():
    assert history.answer(view(FIRST)) == "v1 has one recorded version in warm mode on NVIDIA H200, so there is no change to speak of yet."
    assert history.answer(view(FIRST, page_data.version("v2", 2, 5.0, first=True))).startswith("Each of the 2 variants has one recorded version")


def test_the_variant_that_changed_last_is_named():
    answer = history.answer(view(FIRST, page_data.version("v1", 5, 5.0, before=6.0), page_data.version("v2", 2, 9.0, first=True),
                                 page_data.version("v2", 3, 8.0, before=9.0), page_data.version("v3", 4, 7.0, first=True)))
    assert answer.startswith("v1, recorded again on 2031-01-05") and answer.endswith("; 2 of 3 variants have more than one version.")


def test_a_version_that_failed_has_no_difference_and_is_hollow():
    found = view(FIRST, page_data.version("v1", 2, 3.0, kernel=("binary",), status="failed"))
    assert "is failed, and was 6.00 µs" in history.answer(found) and "faster" not in history.answer(found)
    assert [value["fill"] == "var(--paper)" for value in history_charts._values(found.tracks[0])] == [False, True]


def test_versions_of_other_devices_are_another_history():
    assert view(FIRST, page_data.version("v0", 2, 9000.0, device="cpu", first=True)).tracks == view(FIRST).tracks
    document = whole(page_data.on_h200(history=[page_data.version("v0", 2, 9000.0, device="cpu", first=True)]))
    assert history.nothing(document) == "No version of a variant is recorded on NVIDIA H200 yet; snakemake --cores 1 record keeps the first."


def test_the_table_says_what_changed_newest_first():
    lines = history.lines(view(FIRST, page_data.version("v1", 2, 5.0, before=6.0, kernel=("source", "binary"), verdict="faster")))
    assert [(line["when"][:10], line["kernel"], line["measuring"], line["change"], line["verdict"]) for line in lines] == [
        ("2031-01-02", "source", "nothing", "17\u202f% less", "faster"), ("2031-01-01", "first version", "–", "–", "")]
    assert lines[0]["cases"] == "300/300" and lines[0]["anchor"].startswith("0.600")


# Its picture

def test_names_at_the_edge_do_not_touch_and_stay_inside():
    for heights in ([0, 1, 2, 3], [270, 271, 279, 280], [5, 100, 101, 275, 280], [140]):
        placed = history_charts.labels([float(height) for height in heights])
        assert all(two - one >= history_charts.LABEL - 1e-9 for one, two in zip(placed, placed[1:])) and placed[-1] <= history_charts.HEIGHT


def test_a_picture_of_many_variants_is_of_the_fastest_and_says_so():
    document = whole(page_data.many())
    [warm, _] = render.histories(document)["figures"]
    assert len(warm["view"].drawn) == history.MOST_DRAWN and warm["view"].left_out == 200 - history.MOST_DRAWN
    assert warm["view"].drawn[0].name == warm["view"].tracks[0].name


@pytest.mark.parametrize("days", [(1,), (1, 2), (1, 28)])
def test_an_axis_of_dates_has_few_marks_within_what_was_recorded(days):
    spec = history_charts.trend(view(*(page_data.version("v1", day, 5.0, first=day == 1) for day in days)))
    axis = next(layer["encoding"]["x"]["axis"] for layer in spec["layer"] if "axis" in layer.get("encoding", {}).get("x", {}))
    assert 1 <= len(axis["values"]) <= history_charts.MOST_MARKS + 1
    first, last = (history_charts._at(f"2031-01-{day:02}T03:04:05Z") / 1000 for day in (days[0], days[-1]))
    air = max(3600, (last - first) * 0.05)
    assert all(first - air <= mark / 1000 <= last + air for mark in axis["values"])


def test_the_page_shows_the_history_or_says_how_to_begin_one(pages):
    shown = section(pages("realistic"), "history")
    assert re.findall(r"<h3>(.*?)<a", shown) == ["Warm: what became of each variant?", "Stream: what became of each variant?"]
    assert shown.count("data-chart=") == shown.count('class="marks"') == shown.count("<table>") == 2
    assert "goal 5 µs" in shown and "v2_hang" in shown
    nothing = section(pages("one_variant"), "history")
    assert "data-chart=" not in nothing and "snakemake --cores 1 record keeps the first" in nothing


# Processes over clocks

def spread(*opened, mode="warm"):
    return clocks.spread(whole(page_data.on_h200(processes=list(opened))), mode)


@pytest.mark.parametrize("opened, said", [
    (page_data.opened("v1", 5.0), "No: the 5 process medians of v1 lie within 0.399\u202f%, while all ran at 1,980 MHz; none of the 5 processes shown was rejected."),
    (page_data.opened("v1", 5.0, (1980, 1965, 1950, 1935, 1920), in_step=True), "Yes: the 5 process medians of v1 lie within 3.08\u202f% at 1,920 to 1,980 MHz"),
    (page_data.opened("v1", 5.0, (1980, 1965, 1980, 1965, 1980), slow=0.02), "No: the 5 process medians of v1 lie within 7.7\u202f% at 1,965 to 1,980 MHz"),
    (page_data.opened("v1", 5.0, (1980, 1965)), "Too few processes to say"), (page_data.opened("v1", 5.0, (1980,)), "Not known: one process of v1 counts")])
def test_the_clock_explains_a_spread_that_cycles_do_not_have(opened, said):
    assert clocks.answer(spread(opened)).startswith(said)


def test_rejected_processes_do_not_count_and_are_named():
    found = spread(page_data.opened("v1", 5.0, (1980, 1980, 1980, 1980, 1980, 1755), rejected=(5,), slow=0.001))
    assert "the 5 process medians of v1 lie within 0.399\u202f%" in clocks.answer(found)
    assert "1 of the 6 processes shown was rejected (process 5 of v1: SM clock off" in clocks.answer(found)
    values = clock_charts.lanes(found)["data"]["values"]
    assert [value["verdict"] for value in values] == ["accepted"] * 5 + ["rejected"]
    shapes = next(layer["encoding"]["shape"]["scale"] for layer in clock_charts.lanes(found)["layer"] if "shape" in layer["encoding"])
    assert len(set(shapes["range"])) == 2, "colour is not all that tells them apart"


def test_points_and_bands_stay_in_their_lanes():
    found = spread(page_data.opened("v1", 5.0, slow=0.03), page_data.opened("v2", 9.0, slow=0.0001))
    for value in clock_charts.lanes(found)["data"]["values"]:
        assert (0 if value["name"] == "v1" else 1) < value["place"] < (1 if value["name"] == "v1" else 2)


def test_without_clocks_there_is_no_section(pages, cache):
    assert 'id="clocks"' not in pages("one_variant") and 'href="#clocks"' not in pages("one_variant")
    shown = section(pages("realistic"), "clocks")
    assert re.findall(r"<h3>(.*?)<a", shown) == ["Warm: does the clock explain the spread?", "Stream: does the clock explain the spread?"]
    assert shown.count('class="marks"') == 2 and "</i>rejected" in shown and "record over events" in shown
    assert "<img" not in without_bundle(pages("realistic"), cache), "the reason of a rejection is only text"


def test_a_lane_of_equal_times_can_be_drawn():
    assert clock_charts.lanes(spread(page_data.opened("v1", 5.0, slow=0.0)))["height"] == clock_charts.LANE
