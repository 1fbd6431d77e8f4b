"""The loop's decisions on planted evidence: who is proposed, dropped, kept, and what is learnt. No number here was measured."""

from __future__ import annotations

import dataclasses

import pytest

from evosdpa import benchmarking, config as configuration, evidence, plan
from evosdpa.config import EvolveSection
from evosdpa.evidence import Bench, Build, EvidenceError, Sanitize, Static, Status, Timing, Verify
from evosdpa.evolve import credit, document, finals, lineage, proposal, proposing, screening, selecting, telling
from evosdpa.evolve.lineage import Change, Child, History, Population, Result, Screening
from evosdpa.evolve.proposing import Proposer
from test_insights import GOOD, STALL, but

START = dataclasses.replace(GOOD, name="k")


def history(*generations: tuple[list[Child], list[Result], list[str]]) -> History:
    """A planted history from the children, results and elites of each generation."""
    made = History("nvidia-h200")
    for number, (children, results, elites) in enumerate(generations):
        head = dict(variant="evolve", device="nvidia-h200", generation=number)
        made.generations.append((Screening(**head, children=children), Population(**head, results=results, elites=elites, modes=["warm"],
                                                                                  times_us={name: {"warm": 4.0} for name in elites})))
    return made


def tried(name: str, ratio: float, verdict: str, *changes: tuple[str, str, str], rules: tuple[str, ...] = (), at_most: float | None = None,
          half: float = 0.01) -> tuple[Child, Result]:
    """A measured child of k with its planted ratio."""
    child = Child(name=name, operator="explore", parent="k", changes=[Change(lever=one, before=before, after=after) for one, before, after in changes],
                  rules=list(rules), at_most=at_most)
    against = {"warm": dict(ratio=ratio, low=ratio - half, high=ratio + half, error=half / ratio / 2, verdict=verdict, how="within")}
    return child, Result(name=name, status=Status.OK, against=against, times_us={"warm": 4.0 * ratio}, measured_s=60)


def after(*pairs: tuple[Child, Result], elites: tuple[str, ...] = ("k",)) -> History:
    """A history in which k had these children."""
    return history(([Child(name="k", operator="start")], [Result(name="k", status=Status.OK, entered=True, measured_s=60)], ["k"]),
                   ([child for child, _ in pairs], [result for _, result in pairs], list(elites)))


def proposed(evidences, past=None, wanted=6, number=2, **settings):
    elites = [proposing.elite_of(one) for one in evidences]
    return list(Proposer(EvolveSection(**settings), number, elites, past or after()).children(wanted))


# Proposals

def test_every_child_changes_exactly_two_levers_and_none_comes_twice():
    children = proposed([START], wanted=50, explore=1)
    assert len(children) == 2 * 3 + 2 * 1 + 3 * 1  # pairs of BLOCK_Q (3), STAGES (4) and NUM_WARPS (2) values other than its own
    assert len({child.name for child in children}) == len(children)
    for child in children:
        assert len(child.changes) == 2 and all(change.before != change.after for change in child.changes)
        assert child.name == "k@" + ",".join(f"{change.lever}={change.after}" for change in child.changes) and child.parent == "k"


def test_the_same_seed_gives_the_same_children_and_another_gives_others():
    assert proposed([START], seed=4) == proposed([START], seed=4)
    assert [child.name for child in proposed([START], seed=4)] != [child.name for child in proposed([START], seed=5)]


def test_what_was_tried_is_not_proposed_again():
    first = proposed([START], wanted=11, explore=1)
    past = after(*[tried(child.name, 1.1, "slower", *[(one.lever, one.before, one.after) for one in child.changes]) for child in first[:10]])
    left = proposed([START], past, wanted=5, explore=1)
    assert [child.name for child in left] == [first[10].name]
    elite = proposing.elite_of(START)
    assert proposing.too_few([elite], 5, len(left)) == ["k: every child that changes 2 of its levers was tried"]


def test_a_source_without_two_levers_says_so():
    one = dataclasses.replace(START, declared={"PDL": (0, 1)}, levers={"PDL": "0"}, defaults={"PDL": "0"})
    assert proposed([one]) == []
    assert proposing.too_few([proposing.elite_of(one)], 5, 0) == ["k: its source declares 1 lever, and a child changes 2"]


def test_a_guided_child_follows_the_rule_that_allows_most_in_its_direction():
    waits = dataclasses.replace(but(metrics={STALL.format("long_scoreboard"): 4.0}), name="k")
    for child in proposed([waits], wanted=3, explore=0, crossover=0):
        assert child.operator == "guided" and "stall_long_scoreboard" in child.rules and 0 < child.at_most < 1
        assert any(change.lever == "STAGES" and int(change.after) > 2 for change in child.changes)


def test_a_rule_that_was_wrong_loses_to_one_that_was_not():
    both = dataclasses.replace(but(metrics={STALL.format("long_scoreboard"): 1.4, STALL.format("barrier"): 1.2}), name="k",
                               declared={**START.declared, "OTHER": (0, 1, 2)}, levers={**START.levers, "OTHER": "0"}, defaults={**START.defaults, "OTHER": "0"})
    assert "stall_long_scoreboard" in proposed([both], wanted=1, explore=0, crossover=0)[0].rules
    wrong = [tried(f"x{number}", 1.0, "same", ("OTHER", "7", "8"), rules=("stall_long_scoreboard",)) for number in range(4)]
    child = proposed([both], after(*wrong), wanted=1, explore=0, crossover=0)[0]
    assert child.rules == ["stall_barrier"] and ("NUM_WARPS", "4") in {(change.lever, change.after) for change in child.changes}


def test_without_any_hint_the_credit_of_earlier_children_leads():
    past = after(tried("k@BLOCK_Q=32,STAGES=3", 0.8, "faster", ("BLOCK_Q", "64", "32"), ("STAGES", "2", "3")),
                 tried("k@BLOCK_Q=128,STAGES=4", 1.3, "slower", ("BLOCK_Q", "64", "128"), ("STAGES", "2", "4")))
    child = proposed([START], past, wanted=1, explore=0, crossover=0)[0]
    assert child.operator == "guided" and child.rules == [] and child.at_most is None
    assert {(change.lever, change.after) for change in child.changes} & {("BLOCK_Q", "32"), ("STAGES", "3")}
    nothing = proposed([START], wanted=1, explore=0, crossover=0)[0]
    assert nothing.operator == "explore", "nothing speaks for any child yet"


def test_what_credit_leads_one_to_expect_is_the_mean_of_both_changes():
    past = after(tried("a", 0.8, "faster", ("BLOCK_Q", "64", "32"), ("STAGES", "2", "3")), tried("b", 1.25, "slower", ("BLOCK_Q", "64", "32"), ("STAGES", "2", "4")))
    credits = credit.of_changes(past)
    two = [Change(lever="BLOCK_Q", before="64", after="32"), Change(lever="STAGES", before="2", after="3")]
    assert credit.expected(credits, "a", two) == pytest.approx(0.8)
    assert credit.expected(credits, "a", [two[0], Change(lever="NUM_WARPS", before="8", after="4")]) is None


def test_crossover_takes_two_levers_from_another_elite_of_its_source():
    other = dataclasses.replace(START, name="k@BLOCK_Q=32,NUM_WARPS=4,STAGES=4", levers={"BLOCK_Q": "32", "STAGES": "4", "NUM_WARPS": "4"})
    stranger = dataclasses.replace(other, name="z@BLOCK_Q=32,NUM_WARPS=4,STAGES=4")
    children = proposed([START, other, stranger], wanted=4, explore=0, crossover=1)
    first = children[0]
    assert first.operator == "crossover" and first.parent == "k" and first.other == other.name and len(first.changes) == 2
    assert all(other.levers[change.lever] == change.after for change in first.changes)
    assert next(child for child in children if child.parent == stranger.name).operator != "crossover", "nobody else has its source"


# What binaries exclude

def built(name, sha=None, spills=0, status=Status.OK, reason=""):
    return Build(variant=name, status=status, reason=reason, library_sha256=sha or name, ptxas=[dict(name="kernel", spill_stores=spills, spill_loads=0)])


def described(name, **launch):
    return Static(variant=name, launches=[dict(problem="p", kernel="kernel", **launch)])


@pytest.mark.parametrize("build, static, reason", [
    (built("c", status=Status.FAILED, reason="does not compile: error: no STAGES"), None, "does not compile: error: no STAGES"),
    (built("c", sha="parent"), described("c", blocks_per_sm=1), "is the same code as parent"),
    (built("c", spills=48), described("c", blocks_per_sm=1), "spills 48 bytes of registers, its parent 16"),
    (built("c"), described("c", blocks_per_sm=0, limiter="shared memory"), "no CTA fits on an SM: shared memory"),
    (built("c"), described("c", reason="cuda_occupancy.h refuses 256 threads with 300000 bytes of shared memory"), "cuda_occupancy.h refuses 256 threads"),
    (built("c", spills=16), described("c", blocks_per_sm=1), ""),
    (built("c"), None, ""),
])
def test_a_binary_that_cannot_be_good_is_dropped_with_its_reason(build, static, reason):
    child = Child(name="c", operator="explore", parent="parent")
    statics = {"parent": described("parent", blocks_per_sm=1), **({"c": static} if static else {})}
    found = screening.screen([child], 1, {"parent": built("parent", spills=16), "c": build}, statics, "p", {"parent": built("parent", spills=16)})
    assert found[0].dropped.startswith(reason) and bool(found[0].dropped) == bool(reason)


def test_a_spare_takes_the_place_of_a_dropped_child_and_is_otherwise_left():
    children = [Child(name=name, operator="explore", parent="k") for name in ("a", "b", "c", "d")]
    builds = {name: built(name, sha="same" if name in ("a", "b") else None) for name in "abcdk"}
    found = screening.screen(children, 2, builds, {}, "p", {})
    assert [(one.name, bool(one.dropped)) for one in found] == [("a", False), ("b", True), ("c", False)]
    assert found[1].dropped == "is the same code as a"


# Who stays

def timed(*medians: float, mode: str = "warm", status: Status = Status.OK, name: str = "x") -> dict[str, Timing]:
    return {mode: Timing(name=name, problem="p", mode=mode, status=status, time_us=sum(medians) / len(medians), process_medians_us=list(medians))}


def around(time_us: float, share: float = 0.002) -> tuple[float, ...]:
    """Process medians around a time."""
    return tuple(time_us * (1 + share * step) for step in (-1, 0.5, 0, 1, -0.5))


FAST, SAME, NOISY, SLOW = around(4.0), around(5.0), (3.0, 7.0, 4.2, 5.0, 4.0), around(6.0)


def test_only_what_is_surely_faster_passes_an_elder():
    times = {"elder": timed(*SAME), "fast": timed(*FAST), "noisy": timed(*NOISY), "slow": timed(*SLOW), "twin": timed(*SAME)}
    assert selecting.ranked(["elder"], ["slow", "noisy", "twin", "fast"], times) == ["fast", "elder", "noisy", "twin", "slow"]


def test_the_more_comparisons_the_surer_each_must_be():
    better = timed(*around(4.93, 0.009))
    assert selecting.beats(better, timed(*SAME), 1) and not selecting.beats(better, timed(*SAME), 200)


def test_a_newcomer_must_not_lose_in_any_mode():
    both = {"elder": {**timed(*SAME), **timed(*SAME, mode="stream")}, "mixed": {**timed(*FAST), **timed(*SLOW, mode="stream")},
            "better": {**timed(*FAST), **timed(*NOISY, mode="stream")}}
    assert selecting.ranked(["elder"], ["mixed", "better"], both) == ["better", "elder", "mixed"]


def test_elders_change_places_too_and_nobody_stands_before_one_that_beat_it():
    times = {"A": timed(*SLOW), "B": timed(*FAST), "N": timed(*SAME)}
    assert selecting.ranked(["A", "B"], ["N"], times) == ["B", "N", "A"]


def test_without_a_good_time_a_newcomer_is_left_out_and_an_elder_keeps_its_place():
    times = {"elder": timed(*SAME, status=Status.UNSTABLE), "second": timed(*SLOW), "shaky": timed(*FAST, status=Status.UNSTABLE)}
    assert selecting.ranked(["elder", "second"], ["shaky", "absent"], times) == ["elder", "second"]


@pytest.mark.parametrize("order, places, elites", [
    (["a@X=1", "a", "a@X=2", "b"], 3, ["a@X=1", "a", "b"]),  # the slower source keeps its best
    (["a@X=1", "a", "b"], 2, ["a@X=1", "b"]),
    (["a", "b", "c", "d"], 3, ["a", "b", "c"]),  # more sources than places
    (["a", "a@X=1"], 3, ["a", "a@X=1"]),
    (["a", "a@X=1", "a@X=2", "a_g1c1_12ab"], 3, ["a", "a@X=1", "a@X=2"]),  # what a generator wrote has no place of its own
    (["a", "a@X=1", "a_g1c1_12ab@Y=1", "b"], 3, ["a", "a@X=1", "b"]),
])
def test_elites_of_different_sources_live_side_by_side(order, places, elites):
    assert selecting.kept(order, places) == elites


def run(name: str, medians: tuple[float, ...], verify: Status = Status.OK, timing: Status = Status.OK, anchor: float = 10.0, floor: float = 1.0):
    """Evidence of one variant as its own run left it."""
    here = Timing(name=name, problem="p", mode="warm", status=timing, time_us=medians[2], process_medians_us=list(medians),
                  reason="" if timing is Status.OK else "planted")
    beside = [Timing(name=other, problem="p", mode="warm", time_us=time_us, process_medians_us=list(around(time_us)))
              for other, time_us in ((benchmarking.ANCHOR, anchor), ("floor_empty", floor))]
    return {"verify": Verify(variant=name, status=verify, reason="" if verify is Status.OK else "3 cases are wrong"), "sanitize": Sanitize(variant=name),
            "bench": Bench(variant=name, timings=[here], anchors=beside, started="2031-01-01T00:00:00Z", ended="2031-01-01T00:00:10Z")}


@pytest.mark.parametrize("evidence_of_it, status, reason", [
    (run("v", FAST), Status.OK, ""), (run("v", FAST, verify=Status.FAILED), Status.FAILED, "3 cases are wrong"),
    (run("v", FAST, timing=Status.UNSTABLE), Status.UNSTABLE, "warm: planted"), ({"verify": Verify(variant="v")}, Status.NOT_RUN, "no bench evidence"),
    (run("v", FAST, floor=6.0), Status.SUSPECT, "faster than floor_empty, which no kernel can be: 0.67 of its time"),
    ({**run("v", FAST), "sanitize": Sanitize(variant="v", status=Status.FAILED, reason="racecheck: 2 found")}, Status.FAILED,
     "compute-sanitizer racecheck: 2 found"),
])
def test_how_a_variant_stands_by_its_own_evidence(monkeypatch, evidence_of_it, status, reason):
    monkeypatch.setattr(selecting.standing.variants, "floors", lambda: ("floor_empty",))
    found = selecting.stand(evidence_of_it, "p", ["warm"])
    assert (found.status, found.reason) == (status, reason)
    missing = selecting.stand(run("v", FAST), "p", ["warm", "stream"])
    assert (missing.status, missing.reason) == (Status.NOT_RUN, "p was not timed in mode stream")


def stands(**runs):
    return {name.replace("__", "@X="): selecting.stand(found, "p", ["warm"]) for name, found in runs.items()}


def test_finalists_are_the_elites_and_the_best_of_each_source_then_the_next_best():
    found = stands(a=run("a", around(4.0)), b=run("b", around(6.0)), a__1=run("a@X=1", around(4.1)), a__2=run("a@X=2", around(4.2)), a__3=run("a@X=3", around(4.3)),
                   b__1=run("b@X=1", around(5.0)), w=run("w", around(1.0), verify=Status.FAILED))
    assert selecting.finalists(["a", "b"], found, 3) == ["a", "b", "a@X=1", "b@X=1", "a@X=2"]
    assert selecting.finalists(["a", "w"], {name: found[name] for name in ("a", "w")}, 2) == [], "nothing can change, so nothing is measured"
    assert selecting.finalists(["w", "a"], {name: found[name] for name in ("a", "w", "a@X=1")}, 2) == ["a", "a@X=1"], "a broken elite takes no part"


def test_runs_are_compared_by_the_anchor_beside_them():
    found = stands(a=run("a", around(4.0), anchor=10.0), b=run("b", around(4.4), anchor=12.0))
    assert selecting.finalists([], found, 1) == ["b"], "the machine was slower when b was timed"


def chosen(past, children, steps, timings=(), status=Status.OK, reason="", top_k=2):
    settings = configuration.Config(goal=dict(modes=["warm"]), evolve=dict(start=["k"]))
    screened = Screening(variant="evolve", generation=len(past.generations), top_k=top_k, children=[Child(name=name, operator="explore", parent=parent)
                                                                                                 for name, parent in children.items()])
    ended = Bench(variant="finals", timings=list(timings), status=status, reason=reason)
    steps = {name: {**found, "bench": found["bench"].model_copy(update={"timings": [one.model_copy(update={"problem": settings.goal.problem})
                                                                                    for one in found["bench"].timings], "anchors": [
        one.model_copy(update={"problem": settings.goal.problem}) for one in found["bench"].anchors]})} for name, found in steps.items()}
    return selecting.select(settings, "nvidia-h200", past, screened, steps, ended)


def final(name, *medians, status=Status.OK, reason=""):
    return Timing(name=name, problem="p", mode="warm", status=status, reason=reason, time_us=medians[2], process_medians_us=list(medians))


ONE = history(([Child(name="k", operator="start")], [Result(name="k", status=Status.OK, entered=True)], ["k"]))


def test_a_generation_keeps_who_won_and_compares_each_child_with_its_parent():
    steps = {"k": run("k", SAME), "k@L=2": run("k@L=2", FAST), "k@L=3": run("k@L=3", SLOW), "k@L=4": run("k@L=4", FAST, verify=Status.FAILED)}
    found = chosen(ONE, {"k@L=2": "k", "k@L=3": "k", "k@L=4": "k"}, steps, [final("k", *SAME), final("k@L=2", *FAST)])
    assert found.elites == ["k@L=2", "k"] and found.times_us["k@L=2"] == {"warm": 4.0} and found.status is Status.OK
    results = {one.name: one for one in found.results}
    assert results["k@L=2"].against["warm"]["how"] == "within" and results["k@L=2"].against["warm"]["verdict"] == "faster" and results["k@L=2"].entered
    assert results["k@L=3"].against["warm"]["how"] == "between" and results["k@L=3"].against["warm"]["ratio"] == pytest.approx(1.2, rel=1e-3)
    assert results["k@L=4"].status is Status.FAILED and results["k@L=4"].against == {} and results["k@L=4"].measured_s == 10


def test_an_elite_that_is_wrong_now_leaves_with_its_reason():
    steps = {"k": run("k", SAME, verify=Status.FAILED), "k@L=2": run("k@L=2", SLOW)}
    found = chosen(ONE, {"k@L=2": "k"}, steps, status=Status.NOT_RUN, reason="nobody to compare: k@L=2 is alone")
    assert found.elites == ["k@L=2"] and found.left == {"k": "failed: 3 cases are wrong"} and found.results[0].against == {}
    found = chosen(ONE, {"k@L=2": "k"}, {**steps, "k": run("k", SAME)},
                   [final("k", *SAME, status=Status.FAILED, reason="output of a timed launch: wrong"), final("k@L=2", *SLOW)])
    assert found.elites == ["k@L=2"] and found.left == {"k": "failed in the finals: output of a timed launch: wrong"}


def test_unstable_finals_leave_the_elders_and_at_the_start_their_own_runs_decide():
    steps = {"k": run("k", SLOW), "j": run("j", FAST)}
    shaky = [final("k", *SLOW, status=Status.UNSTABLE), final("j", *FAST, status=Status.UNSTABLE)]
    begun = chosen(History("nvidia-h200"), {"k": None, "j": None}, steps, shaky, status=Status.UNSTABLE, reason="2 of 5 steady")
    assert begun.elites == ["j", "k"] and (begun.status, begun.reason) == (Status.UNSTABLE, "finals: 2 of 5 steady") and begun.times_us["j"] == {"warm": 4.0}
    later = chosen(ONE, {"j": "k"}, steps, shaky, status=Status.UNSTABLE, reason="2 of 5 steady")
    assert later.elites == ["k"]


def test_a_start_of_which_nothing_is_right_says_why():
    found = chosen(History("nvidia-h200"), {"k": None}, {"k": run("k", SAME, verify=Status.FAILED)}, status=Status.NOT_RUN)
    assert found.elites == [] and (found.status, found.reason) == (Status.FAILED, "no variant is right and timed: k: failed, 3 cases are wrong")


def test_finals_whose_process_broke_are_no_evidence(monkeypatch, tmp_path):
    def broken(record, *_, **__):
        record.status, record.reason = Status.ERROR, "measuring process: ended with status 1"

    place = tmp_path / "results" / "build" / "host"
    for name in ("v0_reference", "v0_reference@LANES=8"):
        evidence.write(place / name / "build.json", Build(variant=name))
    monkeypatch.setattr(benchmarking, "bench_parts", lambda *_: {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmarking, "measure", broken)
    with pytest.raises(EvidenceError, match="finals of generation 1: measuring process: ended with status 1; run again"):
        finals.measure(configuration.Config(), "cpu", "sm_90a", ["v0_reference", "v0_reference@LANES=8"], {}, "finals of generation 1", tmp_path / "samples.csv.gz")


@pytest.mark.parametrize("verdicts, word", [
    (["faster", "same"], "faster"), (["faster", "undecided"], "faster"), (["faster", "slower"], "undecided"), (["slower", "same"], "slower"),
    (["same", "same"], "same"), (["same", "undecided"], "undecided"), ([], "undecided"),
])
def test_one_verdict_over_several_modes(verdicts, word):
    assert credit.overall(verdicts) == word


# What is learnt

def test_credit_of_a_lever_has_an_interval_once_two_children_changed_it():
    past = after(tried("k@L=2,M=2", 0.8, "faster", ("L", "1", "2"), ("M", "1", "2")), tried("k@L=3,N=2", 0.9, "faster", ("L", "1", "3"), ("N", "1", "2")))
    found = {one.lever: one for one in credit.of_levers(past)}
    assert found["L"].pairs == 2 and found["L"].ratio.value == pytest.approx((0.8 * 0.9) ** 0.5, rel=1e-3)
    low, high = found["L"].ratio.interval()
    assert low < found["L"].ratio.value < high and found["M"].ratio.interval() is None and credit.of_levers(past)[0].lever == "M"


def test_credit_is_seen_towards_the_larger_value_whichever_way_a_child_went():
    past = after(tried("k@L=2,M=2", 0.9, "faster", ("L", "1", "2"), ("M", "1", "2")), tried("k@L=1,N=2", 1 / 0.9, "slower", ("L", "2", "1"), ("N", "1", "2")))
    found = {one.lever: one for one in credit.of_levers(past)}
    assert found["L"].ratio.value == pytest.approx(0.9) and found["N"].ratio.value == pytest.approx(1 / 0.9)
    changes = credit.of_changes(past)
    assert changes[("k", "L", "1", "2")].ratio.value == pytest.approx(0.9) and changes[("k", "L", "2", "1")].ratio.value == pytest.approx(1 / 0.9)


def test_a_sure_pair_weighs_more_than_a_shaky_one():
    low = credit.pooled([-0.02, -0.03, 0.3], [0.001, 0.001, 0.6])
    assert low.value < 0.99, "the shaky pair hardly moves it"
    assert credit.pooled([-0.02, -0.02, -0.02], [0.01, 0.01, 0.01]).log_error >= 0.01 / 3**0.5, "agreement by chance is not certainty"
    assert credit.pooled([-0.2, 0.2], [0.001, 0.001]).interval()[0] < 0.5, "two that surely differ tell little of a third"


def test_a_rule_is_shown_right_or_wrong_by_its_children():
    past = after(tried("a", 0.8, "faster", ("L", "1", "2"), rules=("good", "both"), at_most=0.3),
                 tried("b", 0.6, "faster", ("L", "1", "2"), rules=("low",), at_most=0.1),
                 tried("c", 1.2, "slower", ("L", "1", "2"), rules=("both",), at_most=0.3),
                 tried("d", 0.99, "undecided", ("L", "1", "2"), rules=("open",), at_most=0.3))
    lost = Child(name="e", operator="guided", parent="k", rules=["lost"], dropped="spills 8 bytes"), Child(name="f", operator="guided", parent="k", rules=["lost"])
    past.generations[1][0].children += lost
    past.generations[1][1].results.append(Result(name="f", status=Status.FAILED, reason="wrong"))
    records = credit.of_rules(past)
    assert (records["lost"].lost, records["lost"].children, records["lost"].trust) == (2, 2, 0.25)
    assert (records["good"].faster, records["good"].beyond) == (1, 0) and (records["low"].faster, records["low"].beyond) == (1, 1)
    assert (records["both"].faster, records["both"].slower, records["both"].children) == (1, 1, 2)
    assert records["good"].trust > records["both"].trust == 0.5 == records["open"].trust, "an open question teaches nothing"


def test_what_was_found_is_told_in_a_few_lines():
    past = after(tried("k@L=2,M=2", 0.8, "faster", ("L", "1", "2"), ("M", "1", "2")), elites=("k@L=2,M=2", "k"))
    closing = Bench(variant="closing", timings=[final("k", *SAME), final("k@L=2,M=2", *FAST)])
    text = telling.told(past, closing)
    assert "generation 1: 1 measured, 1 right, 0 dropped before" in text
    assert "1. k@L=2,M=2: 4 us warm; 0.800 (0.800 to 0.800, faster) times the time of k in warm" in text and "k L up: gain +20.0 % over 1 child that changed it" in text


# Files

def written(root, *generations: Population, device: str = "cpu", seed: int = 1) -> None:
    """Write generations as the steps do, each after the one before."""
    settings, before = configuration.Config(evolve=dict(seed=seed)), ""
    for number, population in enumerate(generations):
        head, place = lineage.head(settings, device, number, before), root / device / "evolve" / f"gen{number}"
        made = Population(**head, elites=population.elites)
        evidence.write(place / "screening.json", Screening(**head))
        evidence.write(place / "population.json", made)
        before = made.identity


def test_a_file_of_another_place_or_cut_short_is_one_line(tmp_path):
    written(tmp_path, Population(variant="evolve"))
    assert len(lineage.read(tmp_path, "cpu").generations) == 1
    (tmp_path / "nvidia-h200").symlink_to(tmp_path / "cpu")
    with pytest.raises(EvidenceError, match="is of generation 0 on 'cpu'; it does not belong here"):
        lineage.read(tmp_path, "nvidia-h200")
    path = tmp_path / "cpu" / "evolve" / "gen0" / "population.json"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(EvidenceError, match="population.json: not valid JSON"):
        lineage.read(tmp_path, "cpu")


def test_generations_of_another_search_are_no_part_of_a_history(tmp_path):
    written(tmp_path, *(Population(variant="evolve", elites=[name]) for name in ("k", "k@L=2", "k@L=3")))
    assert lineage.read(tmp_path, "cpu").elites == ["k@L=3"]
    written(tmp_path, Population(variant="evolve", elites=["k"]), seed=2)  # a new search has measured its start
    assert lineage.read(tmp_path, "cpu").elites == ["k"] and len(lineage.read(tmp_path, "cpu").generations) == 1


@pytest.mark.parametrize("cubin, other_library, same", [
    ("a gpu's", "b", True), ("another gpu's", "b", False), ("", "b", False), ("a gpu's", "c", False), ("another gpu's", "a", True)])
def test_an_elite_is_the_same_code_when_what_runs_on_the_gpu_is(tmp_path, cubin, other_library, same):
    """It was benched as library a; the finals timed `other_library`, and b is what is known to have come from compiling then."""
    of_bench = Build(variant="k", library_sha256="a", cubin_sha256="a gpu's")
    evidence.write(tmp_path / "nvidia-h200" / lineage.FOLDER / lineage.BUILDS / "k.json", Build(variant="k", library_sha256="b", cubin_sha256=cubin))
    of_finals = lineage.built(tmp_path, "nvidia-h200", "k", other_library)
    assert document._same_code("a", of_bench, other_library, of_finals) is same


def test_a_spent_budget_ends_the_proposals(monkeypatch):
    past = after(tried("k@L=2,M=2", 0.8, "faster", ("L", "1", "2"), ("M", "1", "2")))
    monkeypatch.setattr(lineage, "read", lambda *_: past)
    config = configuration.Config(evolve=EvolveSection(budget_s=100, children=3))
    found = proposal.propose(config, "nvidia-h200", "sm_90a", 2)
    assert found.children == [] and found.notes == ["the budget is spent: 120 of 100 s"]


# Bad input

@pytest.mark.parametrize("start, expected", [
    ([], "evolve.start names no variant to begin with"),
    (["v0_reference", "v3_mma"], "evolve.start mixes variants for GPUs and for the CPU"),
    (["v3_mma"], "evolve.start: v3_mma runs on a GPU, and none is here"),
    (["v3_mna"], "there is no kernels/v3_mna.cu"),
    (["v0_reference@LANES=5"], "LANES=5 is not one of 4, 8, 16"),
])
def test_an_evolution_that_cannot_begin_is_one_line(start, expected, capsys, monkeypatch):
    monkeypatch.setattr(plan.machine, "gpus", lambda: ())
    with pytest.raises(SystemExit):
        plan.Plan({"evolve": {"start": start}}, ["evolve"])
    error = capsys.readouterr().err
    assert error.startswith("evo-sdpa: ") and expected in error and error.count("\n") == 1
