"""The device: one holder at a time, probed after somebody was killed on it; libraries that are what was built."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import threading
import time

import pytest

from evosdpa import config, device, isolate, machine, plan, variants, verification
from evosdpa.evidence import Build, EvidenceError, Status
from evosdpa.harness.abi import ContractError, Library, load
from evosdpa.keys import digest_file
from workspace import PROJECT

GPU = machine.Gpu(0, "NVIDIA H200", "GPU-of-the-tests", "sm_90a", "580")
ENDS_WELL = [sys.executable, "-c", "print('fine')"]
CRASHES = [sys.executable, "-c", "import os; os.abort()"]
HANGS = [sys.executable, "-c", "import time; time.sleep(60)"]


def breaks(reason: str, status: int = 1) -> list[str]:
    """A worker that reports why it cannot go on and ends by itself."""
    return [sys.executable, "-c", f"from evosdpa.harness import report; report.send(event='broken', reason={reason!r}); raise SystemExit({status})"]


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    """Locks of these tests lie in a folder of their own."""
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.fixture
def probes(monkeypatch, tmp_path):
    """Counts probes; `answer` decides whether the device survives them."""
    log = tmp_path / "probes"
    monkeypatch.setattr(device, "PROBE", f"open({str(log)!r}, 'a').write('x'); assert not __import__('os').path.exists({str(tmp_path / 'sick')!r})")
    return lambda: len(log.read_text()) if log.exists() else 0


def test_after_a_good_end_the_device_is_not_probed(probes):
    for _ in range(2):
        with device.hold(GPU) as held:
            assert held.run(ENDS_WELL, 20).status is Status.OK
    assert probes() == 0


@pytest.mark.parametrize("command, timeout_s", [(CRASHES, 20), (HANGS, 0.5)])
def test_after_a_crash_or_a_kill_the_next_step_probes_first_and_then_goes_on(probes, command, timeout_s):
    with device.hold(GPU) as held:
        assert held.run(command, timeout_s).status is not Status.OK
    assert probes() == 0
    with device.hold(GPU) as held:
        assert probes() == 1 and held.run(ENDS_WELL, 20).status is Status.OK
    with device.hold(GPU):
        assert probes() == 1


def test_a_sick_device_is_left_alone_with_one_clear_line(probes, tmp_path):
    with device.hold(GPU) as held:
        held.run(CRASHES, 20)
    (tmp_path / "sick").write_text("")
    for count in (1, 2):  # each step probes again: it may have recovered
        with pytest.raises(EvidenceError, match="NVIDIA H200 did not answer a small kernel") as caught, device.hold(GPU):
            pytest.fail("a sick device was held")
        assert probes() == count and "nvidia-smi" in str(caught.value) and "\n" not in str(caught.value)
    (tmp_path / "sick").unlink()
    with device.hold(GPU) as held:
        assert held.run(ENDS_WELL, 20).status is Status.OK
    with device.hold(GPU):
        assert probes() == 3, "it recovered, and nothing happened since"


def test_a_sick_device_gives_no_evidence(probes, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "gpus", lambda: (GPU,))
    monkeypatch.setattr(machine, "describe", lambda gpu: {})
    mark = device.lock_file(GPU)
    mark.with_name(f"{mark.name}.of-one-that-was-killed").write_text(device.KILLED)
    (tmp_path / "sick").write_text("")
    with pytest.raises(EvidenceError, match="no evidence was written"):
        verification.verify_variant(variants.Variant("v", "v", PROJECT / "kernels/v1_scalar.cu"), config.Config(), "nvidia-h200", Build(variant="v"), tmp_path)


@pytest.mark.parametrize("command, timeout_s", [(CRASHES, 20), (HANGS, 0.5), (breaks("CUDA error: an illegal memory access was encountered"), 20)])
def test_after_a_bad_end_the_same_holder_probes_before_the_next_process(probes, command, timeout_s):
    with device.hold(GPU) as held:
        assert held.run(command, timeout_s).status is not Status.OK and probes() == 0
        assert [held.run(ENDS_WELL, 20).status for _ in range(2)] == [Status.OK] * 2 and probes() == 1
    with device.hold(GPU):
        assert probes() == 1, "the doubt was settled"


@pytest.mark.parametrize("command, finding", [
    (breaks("RuntimeError: no such case"), None), ([sys.executable, "-c", "raise SystemExit(3)"], None), (["/no/such/program"], None),
    (breaks("CUDA error: unspecified launch failure", 86), 86),  # the fault that the sanitizer was there to find
])
def test_a_process_that_ended_by_itself_raises_no_doubt(probes, command, finding):
    with device.hold(GPU) as held:
        assert held.run(command, 20, finding=finding).status is Status.ERROR
        held.run(ENDS_WELL, 20)
    with device.hold(GPU):
        assert probes() == 0


def test_a_device_that_gets_sick_under_its_holder_ends_the_step(probes, tmp_path):
    ran = [sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]
    with pytest.raises(EvidenceError, match="did not answer a small kernel"), device.hold(GPU) as held:
        held.run(CRASHES, 20)
        (tmp_path / "sick").write_text("")
        with pytest.raises(EvidenceError):
            held.run(ran, 20)
        held.run(ran, 20)  # a second thread's: no second probe
    assert probes() == 1 and not (tmp_path / "ran").exists()
    with pytest.raises(EvidenceError), device.hold(GPU):
        pass
    assert probes() == 2, "the mark stays"


def test_threads_share_one_probe(probes):
    with device.hold(GPU) as held:
        held.run(CRASHES, 20)
        threads = [threading.Thread(target=held.run, args=(ENDS_WELL, 20)) for _ in range(4)]
        [thread.start() for thread in threads], [thread.join() for thread in threads]
        assert probes() == 1


def holds(alone: bool) -> str:
    """A program that holds the device, writes in and out into the file named by its argument, 0.5 s apart."""
    return (f"import sys, time; sys.path.insert(0, {str(PROJECT / 'scripts')!r})\nfrom evosdpa import device\n"
            "device.tempfile.gettempdir = lambda: sys.argv[2]\n"
            f"with device.hold(None, alone={alone}):\n"
            "    open(sys.argv[1], 'a').write('in '); time.sleep(0.5); open(sys.argv[1], 'a').write('out ')")


@pytest.mark.parametrize("kinds, together", [((False, False), True), ((True, False), False), ((False, True), False), ((True, True), False)])
def test_only_checks_share_a_device(tmp_path, kinds, together):
    log = tmp_path / "log"
    holders = [subprocess.Popen([sys.executable, "-c", holds(alone), str(log), str(tmp_path)]) for alone in kinds]
    assert [holder.wait(60) for holder in holders] == [0, 0]
    if together and log.read_text() != "in in out out ":  # a slow start may keep them apart
        pytest.skip("they did not meet")
    assert log.read_text() == ("in in out out " if together else "in out in out ")
    assert not list(tmp_path.glob("*.lock.*")), "nobody leaves a mark"


TWO = (GPU, machine.Gpu(1, "NVIDIA H200", "GPU-beside-it", "sm_90a", "580"))


def test_two_timings_get_a_gpu_each_and_a_third_waits_for_the_first_that_is_free(tmp_path):
    got = []

    def third():
        with device.hold(TWO) as held:
            got.append(held.gpu)

    with device.hold(TWO) as first:
        with device.hold(TWO) as second:
            assert {first.gpu, second.gpu} == set(TWO)
            waiting = threading.Thread(target=third)
            waiting.start()
            time.sleep(0.5)
            assert not got
            freed = second.gpu
        waiting.join(20)
        assert got == [freed]
    assert not list(tmp_path.glob("*.lock.*")), "nobody leaves a mark"


def test_a_process_sees_only_the_gpu_that_is_held(probes):
    with device.hold(TWO) as held:
        command = [sys.executable, "-c", "import os; from evosdpa.harness import report; report.send(seen=os.environ['CUDA_VISIBLE_DEVICES'])"]
        assert held.run(command, 20).reports == [{"seen": held.gpu.uuid}]


@pytest.mark.parametrize("count, command, limits, threads", [
    (0, ["all"], {"gpu": 1, "gpu_checks": 4}, 16), (1, ["all"], {"gpu": 1, "gpu_checks": 4}, 16), (2, ["all"], {"gpu": 2, "gpu_checks": 8}, 8),
    (2, ["all", "--resources", "gpu=1"], {"gpu_checks": 8}, 8), (2, ["all", "--executor", "slurm"], {}, 8),
])
def test_as_many_timings_at_once_as_there_are_gpus_of_the_kind(monkeypatch, count, command, limits, threads):
    other = machine.Gpu(2, "NVIDIA L4", "GPU-of-another-kind", "sm_89", "580")
    monkeypatch.setattr(machine, "gpus", lambda: (*TWO[:count], *([other] if count else [])))
    made = plan.Plan({"variants": {}}, [])
    given = argparse.Namespace(executor="slurm" if "slurm" in command else None, resources={"gpu": 1} if "--resources" in command else {})
    assert made.sharing.limits(given) == limits and made.sharing.timing_threads(argparse.Namespace(cores=16))(argparse.Namespace(device="nvidia-h200")) == threads


def test_a_neighbour_at_work_is_no_doubt(probes):
    with device.hold(GPU, alone=False), device.hold(GPU, alone=False) as second:
        assert second.run(ENDS_WELL, 20).status is Status.OK
    with device.hold(GPU):
        assert probes() == 0


def test_a_device_lost_beside_a_check_gives_it_no_evidence(probes, tmp_path):
    with pytest.raises(EvidenceError, match="did not answer a small kernel"), device.hold(GPU, alone=False) as held:
        (tmp_path / "sick").write_text("")
        assert held.run(breaks("CUDA error: device lost"), 20).status is Status.ERROR
    assert probes() == 1


def test_an_interrupt_ends_what_runs_side_by_side(probes):
    def work(item):
        if item == "interrupted":
            time.sleep(1)  # the other has started
            raise KeyboardInterrupt
        return held.run(HANGS, 60).status

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), device.hold(GPU) as held:
        list(device.side_by_side(held, work, ["interrupted", "other"], 2))
    assert time.monotonic() - started < 30
    with device.hold(GPU):
        assert probes() == 1, "the one that was ended leaves a doubt"


def test_what_ran_beside_the_end_of_a_device_is_no_result(probes, tmp_path):
    def work(command):
        return held.run(command, 20).status

    with pytest.raises(EvidenceError, match="did not answer a small kernel"), device.hold(GPU) as held:
        for number, _ in enumerate(device.side_by_side(held, work, [CRASHES, ENDS_WELL], 2)):
            (tmp_path / "sick").write_text("")
        pytest.fail(f"{number + 1} results were given out as good")
    assert not isolate._running


def test_side_by_side_keeps_the_order(probes):
    with device.hold(GPU) as held:
        commands = [[sys.executable, "-c", f"import time; time.sleep({wait}); raise SystemExit({code})"] for code, wait in ((3, 0.5), (4, 0), (5, 0.2))]
        assert [outcome.code for outcome in device.side_by_side(held, lambda command: held.run(command, 20), commands, 3)] == [3, 4, 5]


def test_an_interrupted_holder_leaves_its_mark(probes):
    def interrupt(report):
        raise KeyboardInterrupt
    command = [sys.executable, "-c", "from evosdpa.harness import report; import time; report.send(event='x'); time.sleep(60)"]
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), device.hold(GPU) as held:
        held.run(command, 60, on_report=interrupt)
    assert time.monotonic() - started < 30
    with device.hold(GPU):
        assert probes() == 1


def test_a_holder_that_was_killed_leaves_its_mark(probes, tmp_path):
    code = (f"import sys, time; sys.path.insert(0, {str(PROJECT / 'scripts')!r})\n"
            f"from evosdpa import device, machine\ndevice.tempfile.gettempdir = lambda: {str(tmp_path)!r}\n"
            "with device.hold(machine.Gpu(0, 'x', 'GPU-of-the-tests', 'sm_90a', '1')):\n    print('held', flush=True); time.sleep(60)")
    holder = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with device.hold(GPU):
        assert probes() == 1


def test_two_holders_never_overlap(tmp_path):
    log = tmp_path / "log"
    code = (f"import sys, time; sys.path.insert(0, {str(PROJECT / 'scripts')!r})\n"
            f"from evosdpa import device\ndevice.tempfile.gettempdir = lambda: {str(tmp_path)!r}\n"
            f"with device.hold(None):\n    open({str(log)!r}, 'a').write('in '); time.sleep(0.3); open({str(log)!r}, 'a').write('out ')")
    holders = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = "".join(holder.communicate()[0] for holder in holders)
    assert log.read_text().split() == ["in", "out"] * 3 and "waiting for cpu: another measurement holds" in said


def test_a_worker_that_breaks_says_why_in_one_line():
    code = "from evosdpa.harness import report\ndef main(): raise RuntimeError('CUDA error: an illegal memory access\\nmore lines')\nreport.run(main)"
    outcome = isolate.run([sys.executable, "-c", code], 20)
    assert outcome.status is Status.ERROR and outcome.reason == "CUDA error: an illegal memory access" and "Traceback" in outcome.log


# ---- Libraries

@pytest.fixture
def counter(tmp_path):
    """A library whose function counts its calls: a state that shows how often it is loaded."""
    source, library = tmp_path / "counter.cpp", tmp_path / "counter.so"
    source.write_text('static int calls; extern "C" int count() { return ++calls; }\n')
    subprocess.run([machine.host_compiler(), "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library


def test_a_file_loaded_twice_is_two_libraries(counter):
    one, other = (load(str(counter), digest_file(counter)) for _ in range(2))
    assert [one.count(), one.count(), other.count()] == [1, 2, 1]


def test_what_runs_is_what_was_hashed_whatever_happens_to_the_file(counter):
    library = load(str(counter), digest_file(counter))
    counter.write_bytes(b"something else")
    assert library.count() == 1


@pytest.mark.parametrize("damage, words", [
    (lambda data: data[: len(data) // 2], "is not the file that build.json describes"),
    (lambda data: data + b"\0", "is not the file that build.json describes"),
])
def test_another_file_is_refused(counter, damage, words):
    sha256 = digest_file(counter)
    counter.write_bytes(damage(counter.read_bytes()))
    with pytest.raises(ContractError, match=words) as caught:
        load(str(counter), sha256)
    assert "\n" not in str(caught.value) and "delete it to have it made again" in str(caught.value)


def test_something_else_with_the_right_hash_is_one_line(counter):
    counter.write_text("no library at all")
    with pytest.raises(ContractError, match="cannot be loaded") as caught:
        load(str(counter), digest_file(counter))
    assert "\n" not in str(caught.value)


def test_a_library_without_the_contract_is_refused(counter):
    with pytest.raises(ContractError, match="does not export what sdpa.h asks for"):
        Library(str(counter), digest_file(counter))


def test_a_missing_library_is_one_line(tmp_path):
    with pytest.raises(ContractError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.so"), "0" * 16)

