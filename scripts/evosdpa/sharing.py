"""Who runs beside whom: how many jobs share the GPUs and cores of this machine, and what a job asks a cluster for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evosdpa.config import ClusterEntry
from evosdpa.invocation import HERE

CHECKS = 4
"""Checks (verify, sanitize) that share a GPU: their answers do not depend on time."""


@dataclass(frozen=True)
class Sharing:
    """What the Snakefile asks about resources; `cluster` as config.yaml has it, `gpus` of the measured kinds on this machine."""

    cluster: Mapping[str, ClusterEntry]
    gpus: int
    sends_jobs: bool
    """Whether jobs run elsewhere, or none is started."""

    def limits(self, given: Any) -> dict[str, int]:
        """How many jobs may use the GPUs at once on this machine: one that is timed on each GPU (or the CPU), CHECKS that are not. Not what the
        command line says otherwise of, and nothing where jobs run elsewhere: there the cluster counts its GPUs."""
        if getattr(given, "executor", None) not in HERE:
            return {}
        devices = max(1, self.gpus)
        return {name: limit for name, limit in (("gpu", devices), ("gpu_checks", CHECKS * devices)) if name not in (given.resources or {})}

    def timing_threads(self, workflow: Any, whole: bool = False) -> Callable[[Any], int]:
        """Cores that a timed job reserves, by its wildcards: its share of the workflow's, all of them with one GPU or for a job that takes the
        whole machine, so that no compiler runs beside it; on a cluster what config.yaml says."""
        share = 1 if whole else max(1, self.gpus)

        def threads(wildcards: Any) -> int:
            return self._entry(wildcards).cores if self._on_cluster else max(1, (workflow.cores or 1) // share)

        return threads

    def timing_resources(self) -> dict[str, Any]:
        """What a timed job asks for: a GPU, or the CPU, alone; from a cluster what config.yaml says of its device."""
        return self._cluster_resources() or {"gpu": 1}

    def check_resources(self) -> dict[str, Any]:
        """What a job asks for whose answer does not depend on time: on this machine it may share its GPU."""
        return self._cluster_resources() or {"gpu_checks": 1}

    @property
    def _on_cluster(self) -> bool:
        """Whether jobs ask a cluster for what they need."""
        return bool(self.cluster) and self.sends_jobs

    def _entry(self, wildcards: Any) -> ClusterEntry:
        """What a job on a device asks a cluster for: the device's entry; without one, for the CPU, what an empty one means."""
        return self.cluster.get(wildcards.device) or ClusterEntry()

    def _cluster_resources(self) -> dict[str, Callable[[Any], Any]]:
        """A job's resources, each by its wildcards, under the names that Snakemake's executors read; none without a cluster."""
        if not self._on_cluster:
            return {}
        return {
            "gpu": lambda wildcards: int(wildcards.device != "cpu" or bool(self._entry(wildcards).model)),
            "gpu_model": lambda wildcards: self._entry(wildcards).model,
            "slurm_partition": lambda wildcards: self._entry(wildcards).partition,
            "runtime": lambda wildcards: self._entry(wildcards).time_min,
            "mem_mb": lambda wildcards: self._entry(wildcards).mem_mb,
        }
