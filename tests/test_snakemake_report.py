"""Snakemake's own report has the page in it, made without a network and without a run."""

from __future__ import annotations

import os
import subprocess
import zipfile


def test_snakemakes_report_has_the_page_the_table_and_the_summary(workspace):
    page = workspace.folder / "results/report.html"
    before = page.stat().st_mtime_ns
    command = [one for one in workspace.command("--report", "out.zip") if one not in ("--cores", "2")]  # as people type it, without --cores
    nowhere = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
    done = subprocess.run(command, cwd=workspace.folder, capture_output=True, text=True, timeout=120, env={**os.environ, **nowhere, "CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stdout + done.stderr
    with zipfile.ZipFile(workspace.folder / "out.zip") as packed:
        files = {name.rsplit("/", 1)[-1]: name for name in packed.namelist() if "/data/" in name}
        assert set(files) == {"report.html", "gap.csv", "summary.md"}
        assert all(packed.read(name) == (workspace.folder / "results" / short).read_bytes() for short, name in files.items())
        around = packed.read(next(name for name in packed.namelist() if "/data/" not in name)).decode()
    assert all(f'"{category}"' in around for category in ("Page", "Times", "Summary")) and "One file that needs no network" in around
    assert page.stat().st_mtime_ns == before
