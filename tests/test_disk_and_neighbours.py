"""A full disk, folders without write permission and other runs beside this one: one line, and what was measured stays whole."""

from __future__ import annotations

import contextlib
import hashlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evosdpa import device
from workspace import PROJECT, Workspace, complaints

VERIFY = "results/cpu/v0_reference/verify.json"
BENCH = "results/cpu/v0_reference/bench.json"


def measured(folder: Path) -> dict[str, str]:
    """Every piece of evidence with the digest of its bytes."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((folder / "results").glob("*/*/*.json"))}


def left_overs(folder: Path) -> list[Path]:
    """Temporary files of evidence that was never finished."""
    return list((folder / "results").glob("**/.*.*"))


# ---- A full disk

class SmallDisk:
    """A small file system of its own, mounted where only processes started through `command` see it."""

    def __init__(self, place: Path, megabytes: int) -> None:
        place.mkdir()
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", f"mount -t tmpfs -o size={megabytes}m none '{place}' && echo mounted && exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self._holder.stdout.readline().strip() != "mounted":
            pytest.skip(f"a file system of its own needs user namespaces: {self._holder.communicate()[1].strip()}")
        self.place = place
        self.inside = Path(f"/proc/{self._holder.pid}/root{place}")
        """The same folder as seen from outside."""

    def run(self, folder: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a folder of that disk."""
        return subprocess.run(
            ["nsenter", "--user", "--mount", "--preserve-credentials", f"--target={self._holder.pid}", "sh", "-c", 'cd "$1"; shift; exec "$@"', "sh",
             str(self.place / folder), *command], capture_output=True, text=True, timeout=300, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})

    def snakemake(self, folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Snakemake in a folder of that disk."""
        return self.run(folder, *Workspace(self.place).command(*arguments))

    def fill(self, leave: int = 0) -> Path:
        """Fill the disk but for some bytes."""
        filler = self.inside / "filler"
        size = shutil.disk_usage(self.inside).free - leave
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while size > 0:
                size -= file.write(b"\0" * min(size, 1 << 20))
        return filler

    def close(self) -> None:
        """Unmount."""
        self._holder.communicate()


@pytest.fixture
def disk(tmp_path):
    made = SmallDisk(tmp_path / "disk", 64)
    yield made
    made.close()


def test_a_full_disk_stops_a_run_before_it_deletes_anything_and_space_lets_it_go_on(built, disk):
    shutil.copytree(built.folder, disk.inside / "project")
    workspace = Workspace(disk.inside / "project")
    (workspace.folder / VERIFY).unlink()
    before = measured(workspace.folder)
    filler = disk.fill()
    done = disk.snakemake("project", "all")
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    [line] = complaints(done)
    assert line.startswith(f"evo-sdpa: {disk.place}/project/") and "its disk is full: 0.0 MB left, a run needs 32 MB; free some and start again" in line
    assert measured(workspace.folder) == before and not left_overs(workspace.folder)
    filler.unlink()
    done = disk.snakemake("project", VERIFY)
    assert done.returncode == 0, done.stderr
    assert workspace.json(VERIFY)["status"] == "ok"
    assert {path: digest for path, digest in measured(workspace.folder).items() if path != VERIFY} == before


def test_a_disk_that_fills_up_while_a_job_runs_costs_that_job_only(built, disk):
    shutil.copytree(built.folder, disk.inside / "project")
    workspace = Workspace(disk.inside / "project")
    (workspace.folder / VERIFY).unlink()
    before = measured(workspace.folder)
    fill = ("with open('filler', 'wb', buffering=0) as file:\n        try:\n            while True: file.write(b'0' * 4096)\n"
            "        except OSError: pass\n    evidence.write(given.output")
    workspace.edit("scripts/verify_variant.py", "evidence.write(given.output", fill)
    done = disk.snakemake("project", VERIFY)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert complaints(done) == [f"evo-sdpa: {VERIFY}: cannot be written: No space left on device; mend that and run again"]
    assert measured(workspace.folder) == before and not left_overs(workspace.folder)

def test_a_compiler_without_space_is_no_verdict_on_the_source(built, disk):
    shutil.copytree(built.folder, disk.inside / "project")
    before = measured(disk.inside / "project")
    (disk.inside / "temporary").mkdir()
    disk.fill(leave=8192)
    done = disk.run("project", "env", f"TMPDIR={disk.place}/temporary", sys.executable, "scripts/compile_variant.py", "v0_reference", "--arch", "host",
                    "--settings", "{}", "--folder", "results/build/host/v0_reference")
    assert done.returncode == 1 and done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith("evo-sdpa: ") and "No space left on device" in line and "run again" in line
    assert measured(disk.inside / "project") == before


def test_a_limit_on_the_size_of_files_leaves_the_old_evidence_whole(tmp_path):
    """What a quota does, on machines where no small disk can be made too."""
    code = ("import sys; from pathlib import Path; from evosdpa import command_line, evidence; from evosdpa.evidence import Verify\n"
            "command_line.run(lambda: evidence.write(Path(sys.argv[1]), Verify(variant='v', log='x' * 100_000)))")
    path = tmp_path / "verify.json"
    path.write_text("what was there")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(PROJECT / "scripts")},
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert done.returncode == 1
    assert done.stderr == f"evo-sdpa: {path}: cannot be written: File too large; mend that and run again\n"
    assert [one.name for one in tmp_path.iterdir()] == ["verify.json"] and path.read_text() == "what was there"


# ---- No write permission

def restricted(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake bound by permissions also where the tests run as root."""
    prefix = [] if os.getuid() else ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-dac_override,-dac_read_search,-fowner"]
    return subprocess.run([*prefix, *workspace.command(*arguments)], cwd=workspace.folder, capture_output=True, text=True, timeout=300,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.parametrize("folder", ["results", "results/logs/cpu/v0_reference", ".snakemake/metadata"])
def test_a_folder_without_write_permission_stops_a_run_before_it_deletes_anything(workspace, folder):
    (workspace.folder / VERIFY).unlink()
    before = measured(workspace.folder)
    (workspace.folder / folder).chmod(0o555)
    done = restricted(workspace, "all")
    (workspace.folder / folder).chmod(0o755)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert complaints(done) == [f"evo-sdpa: {workspace.folder / folder}: no permission to write there; change it (chown or chmod) "
                                "or work in a copy of the project"]
    assert measured(workspace.folder) == before


def test_recorded_evidence_that_may_not_be_written_is_one_line(workspace):
    (workspace.folder / "results/recorded").mkdir()
    (workspace.folder / "results/recorded").chmod(0o555)
    done = restricted(workspace, "record")
    (workspace.folder / "results/recorded").chmod(0o755)
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert complaints(done) == ["evo-sdpa: results/recorded/cpu: Permission denied; mend that and run again"]


def test_a_dry_run_needs_no_right_to_write_results(workspace):
    (workspace.folder / "results").chmod(0o555)
    done = restricted(workspace, "-n", "all")
    (workspace.folder / "results").chmod(0o755)
    assert done.returncode == 0, done.stderr


# ---- Two at once

@contextlib.contextmanager
def running(workspace: Workspace, target: str, log: str):
    """Snakemake at work in a workspace, from when a log of its exists; ended afterwards."""
    process = subprocess.Popen(workspace.command(target), cwd=workspace.folder, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    try:
        deadline = time.monotonic() + 60
        while not (workspace.folder / log).exists():  # made when its job starts
            assert time.monotonic() < deadline and process.poll() is None, process.stdout.read()
            time.sleep(0.05)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_second_run_in_the_folder_is_one_line_and_the_first_goes_on(workspace):
    (workspace.folder / VERIFY).unlink()
    shutil.rmtree(workspace.folder / "results/logs/cpu/v0_reference")
    with running(workspace, VERIFY, "results/logs/cpu/v0_reference/verify.log") as first:
        with device.hold(None):  # so that the first is still at work
            second = workspace.snakemake("all")
            looking = workspace.snakemake("-n", "all")
            summary = workspace.snakemake("--summary", "all")
            assert first.poll() is None, "the first run ended before the others were tried"
        output, _ = first.communicate(timeout=120)
        assert first.returncode == 0, output
    assert second.returncode == 1 and second.stdout == ""
    [line] = complaints(second)
    assert line == (f"evo-sdpa: another snakemake (process {first.pid}) is at work in {workspace.folder}; start again when it has ended, "
                    "or work in a copy of the folder (a dry run, -n, may go on beside it)")
    assert "Traceback" not in second.stderr and "LockException" not in second.stderr
    assert looking.returncode == 0 and summary.returncode == 0 and not complaints(looking)
    assert workspace.json(VERIFY)["status"] == "ok" and workspace.planned(VERIFY) == set()


STAMP = """
#include <fcntl.h>
#include <time.h>
#include <unistd.h>
#include <cstdio>
#include <cstring>
namespace {{
const char folder[] = "{folder}";
const char *step() {{ // which worker this process is
    static char line[4096];
    int file = open("/proc/self/cmdline", O_RDONLY);
    ssize_t size = read(file, line, sizeof line - 1);
    close(file);
    for (ssize_t i = 0; i < size; ++i) if (!line[i]) line[i] = ' ';
    return strstr(line, "harness.bench") ? "bench" : "other";
}}
void stamp() {{
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    char line[64];
    int file = open("{log}", O_WRONLY | O_APPEND | O_CREAT, 0644);
    int size = snprintf(line, sizeof line, "%lld%09ld %s %s\\n", (long long)now.tv_sec, now.tv_nsec, folder, step());
    if (write(file, line, size) != size) _exit(1);
    close(file);
}}
}}
"""


def test_runs_in_two_folders_never_time_at_once_and_nothing_is_lost(built, tmp_path):
    log = tmp_path / "launches"
    both = [built.copy(tmp_path / name) for name in ("first", "second")]
    for workspace in both:
        source = workspace.folder / "kernels/v0_reference.cpp"
        text = source.read_text()
        head, brace, body = text.partition("int sdpa_launch")
        assert brace
        opening = body.index("{") + 1
        source.write_text(head.replace("*/\n", "*/\n" + STAMP.format(folder=workspace.folder.name, log=log), 1) + brace + body[:opening] + " stamp(); " + body[opening:])
    processes = [subprocess.Popen(workspace.command("v0_reference"), cwd=workspace.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}) for workspace in both]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert any("waiting for cpu: another measurement holds" in output for output in outputs)
    launches = [tuple(line.split()[1:]) for line in sorted(log.read_text().splitlines(), key=lambda line: int(line.split()[0]))]
    assert {folder for folder, _ in launches} == {"first", "second"} and len(launches) > 1000
    for folder in ("first", "second"):
        timed = [number for number, launch in enumerate(launches) if launch == (folder, "bench")]
        beside = {launch for launch in launches[timed[0]:timed[-1]] if launch[0] != folder}
        assert not beside, "while one folder times, the other does nothing on the device"
    for workspace in both:
        assert {workspace.json(path)["status"] for path in (VERIFY, BENCH)} == {"ok"}
