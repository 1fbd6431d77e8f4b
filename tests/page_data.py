"""Planted gap documents for tests of the page. Every number here is made up; none was measured on any device."""

from __future__ import annotations

import copy
from typing import Any

GOAL = "b1h8s512d64-fp16"
CAUSAL = "b1h8s512d64-fp16-causal"
H200 = "nvidia-h200"
PLANTED = "2031-01-02T03:04:05Z"
MODES = ("warm", "stream", "cold", "eager")
HOSTILE = "</script><img src=x onerror=alert(1)> & \u2028 \"'"

Row = dict[str, Any]


def row(name: str, time_us: float | None, kind: str = "variant", *, mode: str = "warm", problem: str = GOAL, device: str = H200, spread: float = 0.004,
        status: str = "ok", reason: str = "", stale: bool = False, changed: str = "", goal_us: float = 5.0, ratio: float | None = None,
        best: str | None = None, verdict: str | None = None, origin: str = "recorded") -> Row:
    """One planted row of gap.json; `spread` is the half-width of the interval as a share of the time."""
    bounded = time_us is not None and spread > 0
    return dict(
        kind=kind, name=name, device=device, origin=origin, recorded_on=PLANTED, stale=stale, changed=changed, problem=problem, mode=mode, status=status,
        reason=reason, time_us=time_us, ci_low_us=time_us * (1 - spread) if bounded else None, ci_high_us=time_us * (1 + spread) if bounded else None,
        tflops=536.870912 / time_us if time_us and kind != "floor" else None, vs_goal=time_us / goal_us if time_us and problem == GOAL else None,
        vs_best_rival=ratio, vs_best_rival_low=ratio * 0.996 if ratio and verdict != "same" else None,
        vs_best_rival_high=ratio * 1.004 if ratio and verdict != "same" else None, best_rival=best, vs_floor=time_us / 2.05 if time_us else None,
        verdict=verdict, processes=5, samples=200)


def fact(name: str, *, device: str = H200, status: str = "ok", reason: str = "", stale: bool = False, changed: tuple[str, ...] = (), origin: str = "recorded",
         counts: dict[str, int] | None = None, worst: float | None = 0.81, parent: str | None = None, log: str = "", steps: dict[str, Any] | None = None,
         title: str = "planted", **more: Any) -> dict[str, Any]:
    """One planted entry about a variant."""
    measured = status not in ("not_run", "error")
    made = dict(
        name=name, device=device, source=f"kernels/{name}.cu", on_cpu=device == "cpu", title=title, idea="a planted idea", parent=parent,
        expects="5-6 us (planted)", levers={"STAGES": 2} if "@" in name else {}, declared_levers={"BLOCK_Q": [64, 128], "STAGES": [1, 2, 3]}, status=status,
        reason=reason, stale=stale, changed=list(changed), origins=[origin] if measured else [],
        steps=steps if steps is not None else {
            kind: dict(status="ok", reason="", stale=stale, changed=list(changed), origin=origin, log="") for kind in ("bench", "profile", "sanitize", "verify")
        } if measured else {},
        build=dict(status="error" if log else "ok", reason=reason if log else "", compiler="nvcc 13.0.88", seconds=4.2, arch="sm_90a", warnings=[], log=log),
        static=dict(status="ok", reason=""), spill_bytes=0, instructions={"HMMA": 64, "LDS": 80},
        launch=dict(problem=GOAL, kernel=f"_Z4{name}", grid=[4, 8, 1], block=[128, 1, 1], blocks=32, blocks_per_sm=2, dynamic_shared_bytes=64512,
                    static_shared_bytes=1024, registers=168, limiter="shared memory", occupancy=0.125, waves=0.1212, tail=0.8788, sms=132, threads=128),
        correctness=dict(counts={"ok": 304} if counts is None else counts, worst_ratio=worst, seed=12345) if measured else None,
        sanitize=[dict(tool=tool, status="ok", reason="") for tool in ("memcheck", "racecheck", "initcheck", "synccheck")] if measured else [],
        floors={mode: {"floor_empty": 1.21 * scale, "floor_bytes": 2.05 * scale} for mode, scale in (("warm", 1.0), ("stream", 1.12))} if measured else {},
        sm_mhz={"warm": 1980.0, "stream": 1980.0} if measured else {},
        profile=[dict(problem=GOAL, kernel=name, reason="", grid=[4, 8, 1], block=[128, 1, 1], metrics={
            "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_elapsed": 21.37, "smsp__issue_active.avg.pct_of_peak_sustained_active": 33.1,
            "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active": 12.5, "sm__inst_executed_pipe_xu.avg.pct_of_peak_sustained_active": 17.2,
            "smsp__inst_executed.sum": 128000.0, "launch__waves_per_multiprocessor": 0.12, "lts__t_bytes.sum": 8388608.0,
            "smsp__average_warps_issue_stalled_long_scoreboard_per_issue_active.ratio": 3.21,
            "smsp__average_warps_issue_stalled_short_scoreboard_per_issue_active.ratio": 0.42,
            "smsp__average_warps_issue_stalled_selected_per_issue_active.ratio": 1.0,
            "smsp__average_warps_issue_stalled_barrier_per_issue_active.ratio": 1.07})] if measured else [])
    return {**made, **more}


def cells(name: str, device: str = H200, failed: str = "", refused: str = "", reason: str = "") -> list[dict[str, Any]]:
    """Correctness of one variant along the three axes; `failed` and `refused` name a label whose cases fail or are refused."""
    axes = dict(problem=("tile multiple", "tile - 1", "tile + 1", "seq 1", "one query", "primes, more keys", "GQA", "strided", "goal"),
                family=("normal", "peaked", "sentinel", "large", "outliers", "equal"),
                setting=("D64 fp16", "D64 fp16 causal", "D128 fp16", "D128 bf16 causal", "D64 fp32"))
    found = []
    for axis, labels in axes.items():
        for label in labels:
            wrong, out = label == failed, label == refused
            found.append(dict(variant=name, device=device, axis=axis, label=label, ok=12 if wrong else 0 if out else 16, failed=4 if wrong else 0,
                              unsupported=8 if out else 0, worst_ratio=None if out else 37.2 if wrong else 0.81,
                              reason=reason if wrong else "head_dim 128 only: D64 is refused" if out else ""))
    return found


def piece(name: str, kind: str, device: str = H200, *, stale: bool = False, status: str = "ok", origin: str = "recorded") -> dict[str, Any]:
    """One planted entry of provenance."""
    root = "results/recorded" if origin == "recorded" else "results"
    return dict(path=f"{root}/{device}/{name}/{kind}.json", variant=name, device=device, kind=kind, origin=origin, status=status, stale=stale,
                changed=["source"] if stale else [], started=PLANTED, ended=PLANTED, key="0123456789abcdef", key_parts={"source": "aa"},
                tools={"torch": "2.13.0+cu130", "compiler": "nvcc 13.0.88"}, git={"commit": "a" * 40, "dirty": False}, device_info={})


def result(name: str, *expected: str, said: dict[str, int] | None = None, reason: str = "6 of 6 cases are wrong; goal/x/normal: planted", missed: str = "",
           where: tuple[str, ...] = (), cases: int = 6, ratio: float | None = 37.2, title: str = "planted flaw", idea: str = "a planted flaw") -> Row:
    """One planted kernel's outcome: rejected by the checks meant for it, unless told otherwise."""
    return dict(name=name, title=title, idea=idea, expected=list(expected), where=list(where), said={check: 6 for check in expected} if said is None else said,
                reason=reason, cases=cases, ratio=ratio, missed=missed, status="failed" if missed else "ok", seconds=3.4)


def honest(ratio: float = 0.5, missed: str = "", reason: str = "") -> Row:
    """The control, which no check may reject."""
    return result("honest", reason=reason, missed=missed, cases=332, ratio=ratio, title="no flaw", idea="the control")


def missed(name: str = "silent", *expected: str) -> Row:
    """A planted kernel to which no check says no."""
    expected = expected or ("memcheck",)
    return result(name, *expected, said={}, reason="", cases=332, ratio=0.5, missed=f"{' and '.join(expected)} does not say no (no check says no)")


def not_built(name: str = "unbuilt", reason: str = "does not compile") -> Row:
    """A planted kernel that the compiler refused."""
    return result(name, "accuracy", said={}, reason="", cases=0, ratio=None, missed=reason)


def selftest(*results: Row, device: str = H200, stale: bool = False, changed: tuple[str, ...] = (), reason: str = "", origin: str = "recorded") -> Row:
    """A planted entry about the gate; by default two flaws, both rejected, and the honest kernel."""
    results = results or (result("zeros", "accuracy"), result("race", "repeatable", "racecheck"), honest())
    bad = [one for one in results if one["missed"]]
    return dict(device=device, origin=origin, status="failed" if bad or reason else "ok", reason=reason or (f"{bad[0]['name']}: {bad[0]['missed']}" if bad else ""),
                stale=stale, changed=list(changed), ended=PLANTED, results=list(results))


def tries(kind: str, mode: str, count: int = 20, false: int = 0) -> list[Row]:
    """Planted comparisons of a binary with itself, `false` of them with the verdict slower; no two alike."""
    found = []
    for number in range(count):
        ratio = 1 + 0.004 * ((7 * number) % count / count - 0.5) + (0.02 if number < false else 0.0)
        half = 0.0012 + 0.0006 * (number % 5)
        low, high = ratio - half, ratio + half
        verdict = "slower" if low > 1.005 else "same" if low >= 0.995 and high <= 1.005 else "undecided"
        found.append(dict(kind=kind, mode=mode, runs=[number % 5] if kind == "within" else [0, 1 + number % 4], ratio=ratio, low=low, high=high, verdict=verdict,
                          copies=["v2_wmma#1", "v2_wmma#2"] if kind == "within" else ["v2_wmma#1"]))
    return found


def itself(name: str = "v2_wmma", *, device: str = H200, false: int = 0, modes: tuple[str, ...] = ("warm", "stream"), status: str = "", reason: str = "",
           stale: bool = False, changed: tuple[str, ...] = (), measured: bool = True, **more: Any) -> Row:
    """A planted entry about a binary measured against itself; `false` verdicts are within processes, in the first mode."""
    every = [one for mode in modes for kind in ("within", "between") for one in tries(kind, mode, false=false if (kind, mode) == ("within", modes[0]) else 0)]
    counts = []
    for mode in modes:
        for kind in ("within", "between"):
            these = [one["verdict"] for one in every if (one["kind"], one["mode"]) == (kind, mode)]
            counts.append(dict(kind=kind, mode=mode, tries=len(these), **{verdict: these.count(verdict) for verdict in ("same", "undecided", "faster", "slower")}))
    spread = [dict(mode=mode, median_us=4.83, min_us=4.81, max_us=4.862, count=200) for mode in modes]
    made = dict(device=device, variant=name, origin="recorded", status=status or ("failed" if false > 1 else "ok"), reason=reason, stale=stale, changed=list(changed),
                ended=PLANTED, problem=GOAL, runs=5, copies=8, counts=counts if measured else [], tries=every if measured else [], spread=spread if measured else [])
    return {**made, **more}


SWEPT = ("b1h8s512d64-fp16", "b1h8s128d64-fp16", "b1h16s16384d128-fp16-causal", "b4h16s4096d128-fp16", "b4h16s4096d64-fp16-causal", "b4h16s2048d128-fp16-causal-hkv4",
         "b2h16s1024d128-bf16", "b1h8s1000d64-fp16-causal")


def against(name: str, time_us: float, ratio: float, half: float = 0.004) -> Row:
    """A planted ratio to another's time."""
    low, high = ratio - half, ratio + half
    return dict(name=name, time_us=time_us, ratio=ratio, low=low, high=high,
                verdict="faster" if high < 0.995 else "slower" if low > 1.005 else "same" if low >= 0.995 and high <= 1.005 else "undecided")


def swept(problem: str, time_us: float = 10.0, near: float = 1.0, fast: float = 0.9, **more: Any) -> Row:
    """One problem of a planted sweep: `near` and `fast` are the variant's ratios to the best beside it and to the best rival."""
    rungs = [dict(name="v5_planted", status="ok", reason="", time_us=time_us / near, rival=against("sdpa-cudnn", time_us / fast, fast / near),
                  cudnn=against("sdpa-cudnn", time_us / fast, fast / near)),
             dict(name="v8_planted", status="unsupported", reason="at most 512 keys", time_us=None, rival=None, cudnn=None)]
    made = dict(problem=problem, status="ok", reason="", time_us=time_us, ci_low_us=time_us * 0.998, ci_high_us=time_us * 1.002, tflops=500.0,
                beside=against("v5_planted", time_us / near, near), rival=against("sdpa-cudnn", time_us / fast, fast), cudnn=against("sdpa-cudnn", time_us / fast, fast),
                met_beside=near <= 1.05, met_rival=fast <= 1.1, rungs=rungs, untimed={"flash-attn": f"unsupported: {HOSTILE}"})
    return {**made, **more}


def sweep(*results: Row, device: str = H200, stale: bool = False, changed: tuple[str, ...] = (), status: str = "", reason: str = "", **more: Any) -> Row:
    """A planted sweep of the dispatching variant; by default it is within its limits on every problem."""
    results = results or tuple(swept(problem) for problem in SWEPT)
    bad = any(False in (one.get("met_beside"), one.get("met_rival")) for one in results)
    made = dict(device=device, variant="sdpa_planted", origin="recorded", status=status or ("failed" if bad else "ok"), reason=reason, stale=stale,
                changed=list(changed), ended=PLANTED, mode="warm", processes=3, rivals=["sdpa-cudnn", "flash-attn"], left_out={"v3_planted": f"verify says failed {HOSTILE}"},
                beside_limit=1.05, rival_limit=1.1, results=list(results))
    return {**made, **more}


def tried(name: str, status: str = "ok", reason: str = "", ratio: float | None = 0.49) -> Row:
    """One planted check of an operator."""
    return dict(name=name, status=status, reason=reason, ratio=ratio, error=ratio and ratio * 1e-3)


def operator(*checks: Row, device: str = H200, status: str = "ok", reason: str = "", stale: bool = False, changed: tuple[str, ...] = (), costs: bool = True,
             **more: Any) -> Row:
    """A planted operator; by default three checks are right, one is refused, and it costs a little less than PyTorch's."""
    checks = checks or (tried("call p"), tried("opcheck", ratio=None), tried("block fp16, CUDA graph"), tried("call fp32", "unsupported", f"no fp32 {HOSTILE}", None))
    priced = [dict(name=called, time_us=time_us, ci_low_us=time_us * 0.98, ci_high_us=time_us * 1.02, process_medians_us=[time_us] * 5, event_us=time_us * 0.99, calls=[1000] * 5)
              for called, time_us in (("torch_op.sdpa", 15.0), ("F.scaled_dot_product_attention", 18.0), ("sdpa_launch", 5.0))] if costs else []
    made = dict(device=device, variant="sdpa_planted", origin="recorded", status=status, reason=reason, stale=stale, changed=list(changed), ended=PLANTED, problem=GOAL,
                processes=5 if costs else 0, torch="2.13.0+cu130", checks=list(checks), costs=priced,
                over={name: {part: value for part, value in against(name, 0.0, ratio).items() if part not in ("name", "time_us")}
                      for name, ratio in (("F.scaled_dot_product_attention", 15 / 18), ("sdpa_launch", 3.0))} if costs else {})
    return {**made, **more}


def version(name: str, day: int, time_us: float | None, *, device: str = H200, kernel: tuple[str, ...] = (), measuring: tuple[str, ...] = (), first: bool = False,
            status: str = "ok", before: float | None = None, verdict: str = "", modes: tuple[str, ...] = ("warm", "stream")) -> Row:
    """One planted version of a variant, recorded on a day of January 2031; `before` is the time of the version before."""
    times = [dict(mode=mode, status=status, time_us=time_us and time_us * scale, ci_low_us=time_us and time_us * scale * 0.996,
                  ci_high_us=time_us and time_us * scale * 1.004, processes=5, vs_anchor=0.6, vs_anchor_low=0.597, vs_anchor_high=0.603,
                  ratio=time_us / before if time_us and before else None, verdict=verdict) for mode, scale in (("warm", 1.0), ("stream", 1.12)) if mode in modes]
    return dict(variant=name, device=device, recorded_on=f"2031-01-{day:02}T03:04:05Z", key=f"{day:016}", commit="b" * 40, machine="planted", binary=f"{day:016}",
                first=first, kernel=list(kernel), measuring=list(measuring), cases_passed=300, cases=300, times=times)


def opened(name: str, time_us: float, clocks: tuple[float, ...] = (1980, 1980, 1980, 1980, 1980), *, slow: float = 0.001, rejected: tuple[int, ...] = (),
           device: str = H200, in_step: bool = False, modes: tuple[str, ...] = ("warm", "stream"), **more: Any) -> Row:
    """A planted bench process by process. `slow` is what each is slower than the one before; `in_step`: exactly what its clock makes it."""
    found = []
    for mode in modes:
        for process, mhz in enumerate(clocks):
            median = time_us * (clocks[0] / mhz if in_step else 1 + slow * process)
            found.append(dict(mode=mode, process=process, median_us=median, accepted=process not in rejected, sm_mhz=mhz, sm_mhz_min=mhz - 15, sm_mhz_max=mhz,
                              reason=f"SM clock off {HOSTILE}" if process in rejected else "", samples=200, late=2))
    return dict(variant=name, device=device, stale=False, processes=found, spans={"warm": dict(launches=100, event_us=100 * time_us, span_us=99 * time_us)}, **more)


def full_gate(device: str, count: int = 40) -> Row:
    """As many planted kernels as there are, each with the longest words that a gate has."""
    words = f"6 of 116 cases are wrong; {HOSTILE} " + "tile multiple/b1h2s128d64-fp16-causal/large: 139 of 256 rows are wrong; " * 12
    results = [result(f"flaw_{number}", "accuracy", "racecheck", reason=words, where=("primes", "one query", "one key"), title=f"flaw number {number}",
                      idea="what is wrong with it, as long as people write it in the head of a file, which is one line") for number in range(count - 4)]
    return selftest(*results, missed(), result("astray", "finite", said={"accuracy": 6}, missed="finite does not say no (accuracy)"),
                    not_built(reason=f"kernels/planted/unbuilt.cu(3): error: {HOSTILE}"), honest(), device=device)


def empty() -> dict[str, Any]:
    """Nothing was measured and nothing recorded."""
    return dict(
        goal=dict(problem=GOAL, time_us=5.0, modes=["warm", "stream"], flops=536870912, bytes=2097152, pairs=2097152), this_device=None,
        leading_device="cpu", devices=[dict(slug="cpu", info={}, origins=[], newest="", oldest="")],
        problems=[GOAL, CAUSAL, "b4h16s4096d128-fp16"], rows=[], variants=[], correctness=[], provenance=[], errors=[], required=[],
        selftests=[], repeatability=[], repeatability_wanted=[], sweeps=[], operators=[], planted=38,
        protocol=dict(bench=dict(processes=5, samples=40), verify=dict(tolerance=2.0, seed=None)))


def on_h200(**more: Any) -> dict[str, Any]:
    """An empty document that is about a recorded H200."""
    document = empty()
    info = {"name": "NVIDIA H200", "driver": "580.00", "power_limit_w": 700, "sms": 132, "clocks": {"sm_mhz": 1980}}
    document.update(leading_device=H200, devices=[dict(slug=H200, info=info, origins=["recorded"], newest=PLANTED, oldest=PLANTED)], **more)
    return document


def realistic() -> dict[str, Any]:
    """A planted H200: variants with every kind of status, rivals, floors, four modes, a CPU variant of this machine."""
    document = on_h200()
    factor = dict(warm=1.0, stream=1.12, cold=1.9, eager=3.4)
    rivals = {"sdpa-cudnn": 6.21, "sdpa-flash": 7.9, "sdpa-default": 7.93, "triton-fa2": 9.4, "flex-attention": 14.6}
    for mode in MODES:
        scale = factor[mode]
        best = rivals["sdpa-cudnn"] * scale
        document["rows"] += [row("floor_empty", 1.21 * scale, "floor", mode=mode), row("floor_bytes", 2.05 * scale, "floor", mode=mode)]
        document["rows"] += [row(name, time * scale, "rival", mode=mode, ratio=time * scale / best, best="sdpa-cudnn",
                                 verdict="same" if name == "sdpa-cudnn" else "slower") for name, time in rivals.items()]
        document["rows"].append(row("flash-attn-3", None, "rival", mode=mode, status="not_run", reason="flash_attn_interface is not installed"))
        for name, time in (("v2_wmma", 4.83), ("v2_wmma@STAGES=3", 4.85), ("v1_scalar", 41.2)):
            ratio = time * scale / best
            document["rows"].append(row(name, time * scale, mode=mode, ratio=ratio, best="sdpa-cudnn", verdict="faster" if ratio < 1 else "slower"))
        document["rows"].append(row("v2_stale", 3.9 * scale, mode=mode, stale=True, changed="source, protocol"))
        document["rows"].append(row("v2_wrong", 3.1 * scale, mode=mode, status="failed", reason="4 of 300 cases wrong"))
    for problem, scale in ((CAUSAL, 0.8), ("b4h16s4096d128-fp16", 310.0)):
        document["rows"] += [row(name, time * scale, "rival", problem=problem, ratio=time / 6.21, best="sdpa-cudnn",
                                 verdict="same" if name == "sdpa-cudnn" else "slower") for name, time in rivals.items()]
        document["rows"].append(row("v2_wmma", 6.2 * scale, problem=problem, ratio=6.2 / 6.21, best="sdpa-cudnn", verdict="undecided"))
        document["rows"].append(row("v1_scalar", None, problem=problem, status="unsupported", reason="seq above 2048 is not supported"))
    cpu = dict(device="cpu", origin="measured", spread=0.15)
    document["rows"] += [row("floor_bytes_cpu", 106.3, "floor", **cpu), row("sdpa-default", 18650.4, "rival", ratio=1.0, best="sdpa-default", verdict="same", **cpu),
                         row("v0_reference", 36590.2, ratio=1.96, best="sdpa-default", verdict="slower", **cpu)]
    document["devices"].append(dict(slug="cpu", info={"name": "planted CPU", "cores": 2}, origins=["measured"], newest=PLANTED, oldest=PLANTED))
    log = "\n".join(f"kernels/v2_broken.cu({line}): error: expected a \";\" {HOSTILE}" for line in range(1, 60))
    document["variants"] = [
        fact("v0_reference", device="cpu", origin="measured", launch=None, spill_bytes=None, sanitize=[], profile=[], static=None),
        fact("v1_scalar", counts={"ok": 300, "unsupported": 4}, parent="v0_reference"), fact("v2_wmma", parent="v1_scalar"),
        fact("v2_wmma@STAGES=3", parent="v2_wmma", profile=[],
             steps={"verify": dict(status="ok", reason="", stale=False, changed=[], origin="recorded", log=""),
                    "profile": dict(status="not_permitted", reason="ncu may not read hardware counters here", stale=False, changed=[], origin="recorded", log="")}),
        fact("v2_stale", stale=True, changed=("source", "protocol")),
        fact("v2_wrong", status="failed", reason="4 of 300 cases wrong", counts={"ok": 296, "failed": 4}, worst=37.2),
        fact("v2_broken", status="error", reason=f"does not compile: {HOSTILE}", log=log, title=f"a title {HOSTILE}", launch=None, static=None),
        fact("v2_wgmma", status="unsupported", reason="needs sm_90a", counts={"unsupported": 304}, worst=None),
        fact("v2_hang", status="timeout", reason="no answer after 300 s", counts={"ok": 3, "timeout": 1}, worst=0.5)]
    document["correctness"] = [
        *cells("v0_reference", "cpu"), *cells("v1_scalar", refused="D128 fp16"), *cells("v2_wmma"), *cells("v2_wmma@STAGES=3"), *cells("v2_stale"),
        *cells("v2_wrong", failed="tile + 1", reason=f"tile + 1/b1h2s129d64-fp16/normal: worst row 128 has 37.2 of what is allowed {HOSTILE}")]
    document["provenance"] = [piece(name, kind, stale=name == "v2_stale") for name in ("rivals", "v1_scalar", "v2_wmma", "v2_stale") for kind in ("bench", "verify")]
    document["provenance"].append(piece("v0_reference", "bench", "cpu", origin="measured"))
    document["selftests"] = [full_gate("cpu"), full_gate(H200)]
    document["repeatability"] = [itself("v0_reference", device="cpu", modes=("warm",)), itself(false=2, reason="within processes, warm: 2 of 20 verdicts differ")]
    document["sweeps"] = [sweep(swept(SWEPT[0], near=1.21, fast=1.3), *(swept(problem, 10.0 * number, fast=0.8 + 0.05 * number)
                                                                         for number, problem in enumerate(SWEPT[1:], 1)))]
    document["operators"] = [operator(), operator(tried("block bf16, torch.compile", "failed", f"5 of 200 rows are wrong {HOSTILE}", 37.0), device="cpu", status="failed",
                                                  reason=f"1 of 1 checks say no; {HOSTILE}", costs=False)]
    document["history"] = [
        version("v1_scalar", 1, 61.0, first=True), version("v1_scalar", 3, 60.6, measuring=("harness", "judging"), before=61.0),
        version("v2_wmma", 1, 5.9, first=True), version("v2_wmma", 2, 5.2, kernel=("source", "binary"), before=5.9, verdict="faster"),
        version("v2_wmma", 4, 4.83, kernel=("source", "binary"), measuring=("protocol",), before=5.2),
        version("v2_wrong", 4, 3.1, first=True, status="failed"), version("v2_hang", 4, None, first=True, status="timeout")]
    document["processes"] = [opened("v2_wmma", 4.83, (1980, 1980, 1980, 1980, 1980, 1755), rejected=(5,)),
                             opened("v1_scalar", 60.6, (1980, 1965, 1950, 1935, 1950), in_step=True)]
    document["errors"] = [f"results/recorded/nvidia-h200/v9/bench.json: not valid JSON {HOSTILE}"]
    return document


def measured_here() -> dict[str, Any]:
    """The realistic document as if the H200 were in this machine."""
    document = copy.deepcopy(realistic())
    document["this_device"] = H200
    document["devices"][0]["origins"] = ["measured"]
    for one in document["rows"]:
        one["origin"] = "measured"
    return document


def everything_failed() -> dict[str, Any]:
    """Every variant is wrong, hangs or does not compile; there are no rivals."""
    names = dict(v1="failed", v2="timeout", v3="error", v4="unstable", v5="suspect", v6="not_permitted")
    rows = [row(name, 4.0 if status in ("unstable", "suspect") else None, status=status, reason=f"planted {status}") for name, status in names.items()]
    return on_h200(rows=rows, variants=[fact(name, status=status, reason=f"planted {status}", counts={"failed": 304}, worst=None) for name, status in names.items()],
                   correctness=[cell for name in names for cell in cells(name, failed="goal", reason="goal/x/normal: planted")])


def one_variant(time_us: float = 4.5, **more: Any) -> dict[str, Any]:
    """A single variant in both of the goal's modes, nothing else."""
    return on_h200(rows=[row("v1", time_us, mode=mode, **more) for mode in ("warm", "stream")], variants=[fact("v1")])


def only_stale() -> dict[str, Any]:
    """All evidence is out of date."""
    return on_h200(rows=[row("v1", 4.5, stale=True, changed="source"), row("sdpa-default", 6.0, "rival", stale=True, changed="protocol")],
                   variants=[fact("v1", stale=True, changed=("source",))], provenance=[piece("v1", "bench", stale=True)])


def many(count: int = 200) -> dict[str, Any]:
    """A long evolution."""
    names = [f"v3_mma@BLOCK_KV={32 * (1 + number % 4)},BLOCK_Q=64,NUM_WARPS=4,STAGES={number}" for number in range(count)]
    document = on_h200(variants=[fact(name, parent="v3_mma") for name in names], correctness=[cell for name in names for cell in cells(name)],
                       provenance=[piece(name, kind) for name in names for kind in ("bench", "profile", "sanitize", "verify")])
    for mode in MODES:
        document["rows"] += [row(name, 5.0 + 0.05 * number, mode=mode, ratio=(5 + 0.05 * number) / 6.2, best="sdpa-cudnn", verdict="undecided")
                             for number, name in enumerate(names)]
        document["rows"].append(row("sdpa-cudnn", 6.2, "rival", mode=mode, ratio=1.0, best="sdpa-cudnn", verdict="same"))
    document["history"] = [version(name, day, 5.0 + 0.05 * number + 0.1 * (3 - day), first=day == 1, kernel=("source", "binary") if day > 1 else (),
                                   before=5.1 + 0.05 * number + 0.1 * (3 - day) if day > 1 else None) for number, name in enumerate(names) for day in (1, 2, 3)]
    document["processes"] = [opened(name, 5.0) for name in names[:4]]
    return document


def bare() -> dict[str, Any]:
    """A document with hardly a step: parts missing altogether, entries with nothing but a name."""
    return dict(goal=dict(problem=GOAL, time_us=5.0, modes=["warm"]), leading_device=H200, rows=[dict(kind="variant", name="v1", device=H200, problem=GOAL, mode="warm")],
                variants=[dict(name="v1", device=H200)], correctness=[dict(variant="v1", device=H200, axis="problem", label="goal")],
                provenance=[dict(path="results/x.json")], devices=[dict(slug=H200)], selftests=[dict(device=H200, results=[dict(name="x"), {}]), {}],
                repeatability=[dict(device=H200, variant="v1", counts=[{}], tries=[{}, dict(ratio=1.01)], spread=[{}]), {}], planted=2,
                sweeps=[dict(device=H200, variant="v1", results=[{}, dict(problem=GOAL, status="ok", rungs=[{}])]), {}],
                operators=[dict(device=H200, variant="v1", status="ok", checks=[{}], costs=[{}, dict(name="torch_op.sdpa", time_us=4.0)]), {}],
                history=[dict(variant="v1", device=H200, times=[dict(mode="warm")]), {}],
                processes=[dict(variant="v1", device=H200, processes=[{}, dict(mode="warm", median_us=4.0, sm_mhz=1980)]), {}])


# Evolutions

def compared(ratio: float, half: float = 0.01, how: str = "within") -> Row:
    """A planted time over the parent's, with the half-width of its interval."""
    low, high = ratio - half, ratio + half
    verdict = "faster" if high < 0.995 else "slower" if low > 1.005 else "same" if low >= 0.995 and high <= 1.005 else "undecided"
    return dict(ratio=ratio, low=low, high=high, verdict=verdict, how=how)


def child(name: str, generation: int = 1, parent: str | None = "v4_planted", *, time_us: float | None = 5.0, ratio: float | None = 0.95, half: float = 0.01,
          how: str = "within", operator: str = "guided", status: str = "ok", dropped: str = "", modes: tuple[str, ...] = ("warm", "stream"), **more: Any) -> Row:
    """One planted child, as right and as fast as told; its second mode is a tenth slower, with the same ratio."""
    against = {mode: compared(ratio, half, how) for mode in modes} if parent and ratio is not None and status == "ok" and not dropped else {}
    verdicts = {one["verdict"] for one in against.values()}
    changes = [dict(lever="BLOCK_Q", before="64", after="128"), dict(lever="STAGES", before="2", after="3")] if parent else []
    made = dict(
        generation=generation, name=name, parent=parent, other=None, operator=operator if parent else "start", changes=changes, rules=["stall_barrier"] if parent else [],
        at_most=0.1 if parent else None, expected=None, dropped=dropped, status="" if dropped else status, reason="" if status == "ok" else f"planted {status}",
        times_us={mode: time_us * (1 + 0.1 * place) for place, mode in enumerate(modes)} if time_us and status == "ok" and not dropped else {}, against=against,
        entered=False, verdict=verdicts.pop() if len(verdicts) == 1 else "")
    return {**made, **more}


def lever(name: str, ratio: float, half: float | None = 0.01, pairs: int = 4, before: str = "", after: str = "") -> Row:
    """Planted credit of a lever."""
    return dict(source="v4_planted", lever=name, before=before, after=after, ratio=ratio, low=None if half is None else ratio - half,
                high=None if half is None else ratio + half, pairs=pairs, verdict="undecided" if half is None else compared(ratio, half)["verdict"])


def evolution(*children: Row, elites: tuple[str, ...] = ("v4_planted",), device: str = H200, origin: str = "recorded", problem: str = GOAL,
              modes: tuple[str, ...] = ("warm", "stream"), reasons: dict[int, tuple[str, str]] | None = None, **more: Any) -> Row:
    """A planted evolution of these children; `reasons` names generations that did not end well, with status and reason."""
    known = {one["name"]: one["times_us"] for one in children}
    generations, best = [], {}
    for number in range(1 + max((one["generation"] for one in children), default=0)):
        for one in children:
            if one["generation"] == number and one["status"] == "ok" and (one["entered"] or one["name"] in elites):
                best = {mode: min(time, best.get(mode, time)) for mode, time in one["times_us"].items()}
        status, reason = (reasons or {}).get(number, ("ok", ""))
        generations.append(dict(generation=number, status=status, reason=reason, elites=list(elites), times_us={}, best=dict(best)))
    made = dict(device=device, origin=origin, problem=problem, modes=list(modes), elites=list(elites), times_us={name: known.get(name, {}) for name in elites},
                measured_s=321.0, changed=[], finals=dict(ended=PLANTED, device={}, git={}), generations=generations, children=list(children), levers=[], changes=[],
                rules=[])
    return {**made, **more}


START = child("v4_planted", 0, None, time_us=6.0, entered=True)


def evolved(**more: Any) -> dict[str, Any]:
    """Three planted generations on the H200, with everything that can happen to a child, and an older evolution on a CPU."""
    first = child("v4_planted@BLOCK_Q=128,STAGES=3", 1, time_us=5.5, ratio=0.917, entered=True, at_most=0.05)
    second = child("v4_planted@BLOCK_Q=32,STAGES=3", 2, first["name"], time_us=4.9, ratio=0.89, entered=True, operator="crossover", other="v4_planted", expected=0.95)
    children = (
        START, first,
        child("v4_planted@BLOCK_KV=32,STAGES=3", 1, time_us=6.6, ratio=1.1, operator="explore", rules=[], at_most=None),
        child("v4_planted@BLOCK_KV=128,STAGES=4", 1, status="failed", reason=f"4 of 300 cases wrong {HOSTILE}"),
        second,
        child("v4_planted@BLOCK_Q=32,NUM_WARPS=8", 2, time_us=6.02, ratio=1.003, half=0.02, how="between", expected=0.97),
        child("v4_planted@BLOCK_Q=256,STAGES=4", 2, dropped=f"spills 512 bytes of registers {HOSTILE}"),
        child("v4_planted_g3_1", 3, second["name"], time_us=4.91, ratio=1.001, half=0.003, operator="generator", changes=[], rules=["cold_inputs"], at_most=0.02,
              prompt="prompt-1.md"),
        child("v4_planted@BLOCK_Q=32,STAGES=1", 3, second["name"], time_us=5.3, ratio=1.08, rules=["cold_inputs"], expected=1.02))
    gpu = evolution(
        *children, elites=(second["name"], first["name"], "v4_planted"), reasons={3: ("unstable", "finals: 3 processes rejected: SM clock off")},
        levers=[lever("BLOCK_Q", 0.93, 0.03), lever("STAGES", 1.01, 0.05, 6), lever("BLOCK_KV", 1.1, None, 1), lever("NUM_WARPS", 1.2, 0.1, 2)],
        changes=[lever("BLOCK_Q", 0.9, 0.02, 2, "64", "32"), lever("STAGES", 1.1, None, 1, "2", "4")],
        rules=[dict(rule="cold_inputs", children=2, faster=0, slower=1, same=1, undecided=0, lost=0, beyond=0),
               dict(rule="stall_barrier", children=5, faster=2, slower=0, same=0, undecided=1, lost=2, beyond=1)])
    begun = child("v0_reference", 0, None, time_us=36590.2, modes=("warm",), entered=True)
    slow = child("v0_reference@LANES=8", 1, "v0_reference", time_us=40_000.0, ratio=1.1, modes=("warm",), rules=[], at_most=None)
    cpu = evolution(begun, slow, elites=("v0_reference",), device="cpu", origin="measured", modes=("warm",), changed=["protocol"])
    return {**realistic(), "evolution": [cpu, gpu], **more}


def regressed() -> dict[str, Any]:
    """A planted evolution whose children are all slower."""
    return on_h200(evolution=[evolution(START, *(child(f"v4_planted@STAGES={number}", 1 + number // 2, time_us=6.3 + number / 10, ratio=1.05 + number / 60)
                                                 for number in range(6)), levers=[lever("STAGES", 1.08, 0.03, 6)])])


def long_evolution(count: int = 200) -> dict[str, Any]:
    """A planted evolution of so many children, eight a generation, every fifth dropped and every seventh wrong, in the longest names."""
    parent, children = START["name"], [START]
    for number in range(count):
        name = f"v4_planted@BLOCK_KV={32 * (1 + number % 4)},BLOCK_Q={16 * (1 + number % 9)},NUM_WARPS={number % 8},STAGES={number}"
        bad = dict(dropped=f"spills {number} bytes of registers") if number % 5 == 4 else dict(status="failed") if number % 7 == 6 else {}
        entered = not bad and number % 10 == 0
        children.append(child(name, 1 + number // 8, parent, time_us=6 - number / 150, ratio=0.99 + number % 3 / 100, expected=0.98 if number % 2 else None,
                              entered=entered, **bad))
        parent = name if entered else parent
    return on_h200(evolution=[evolution(
        *children, elites=(parent, START["name"]), levers=[lever(f"LEVER_{number}", 0.9 + number / 100, 0.02, number) for number in range(30)],
        changes=[lever(f"LEVER_{number % 30}", 0.9 + number / 700, 0.02, 2, str(number), str(number + 1)) for number in range(120)])])


EVOLUTIONS = dict(
    evolved=evolved, regressed=regressed, long_evolution=long_evolution,
    only_the_start=lambda: on_h200(evolution=[evolution(START)]),
    nothing_right=lambda: on_h200(evolution=[evolution(START, child("v4_planted@STAGES=1", status="failed"), child("v4_planted@STAGES=4", status="timeout"))]),
    no_start=lambda: on_h200(evolution=[evolution(child("v4_planted", 0, None, status="failed"), elites=(), reasons={
        0: ("failed", "no variant to begin with is right and timed: v4_planted: failed, planted")})]),
    bare_evolution=lambda: on_h200(evolution=[
        dict(generations=[{}]), {}, dict(device=H200, generations=[dict(generation=0)], elites=["v9"], children=[{}, dict(name="v9", operator="start", status="ok")],
                                         levers=[{}, dict(ratio=1.0)], changes=[{}], rules=[{}])]))
"""Documents with an evolution on which the page and the summary must stand."""


EXTREMES = dict(empty=empty, nothing_at_all=dict, everything_failed=everything_failed, one_variant=one_variant, only_stale=only_stale, many=many, bare=bare)
"""Documents on which the page must stand."""
