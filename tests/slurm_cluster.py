"""A SLURM cluster of this one machine, from Debian's packages slurm-wlm and munge: two pretend GPUs, loopback only, no accounting. Needs root.

Its daemons are children of the process that starts it and are told to end with it, however it ends.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

CONFIGURATION = Path("/etc/slurm")
"""Where SLURM looks; $SLURM_CONF would not do, the executor plugin clears SLURM's variables."""

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
START_S = 30.0
GPUS = 2

NAME = "evosdpa-test"

_SLURM = """ClusterName={name}
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
KillWait=5
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
MinJobAge=300
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory={memory_mb} Gres=gpu:pretend:{gpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=01:00:00 State=UP
"""
"""Four CPUs are claimed however many there are, so that two jobs run at once on any machine."""


def missing() -> str:
    """Why the cluster cannot be started here; empty when it can."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    if absent:
        return f"{', '.join(absent)} not found; on Debian: apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start SLURM's daemons for others' jobs"
    conf = CONFIGURATION / "slurm.conf"
    if conf.exists() and (f"ClusterName={NAME}\n" not in conf.read_text() or "UP" in Cluster.output("scontrol", "ping")):
        return f"{conf} exists: this machine belongs to a cluster, or these tests are running already"
    return ""  # one that a killed test left behind is written anew


class Cluster:
    """Started by `start`, ended by `stop`; `node` is its one node."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.node = socket.gethostname().split(".")[0]
        self._daemons: list[subprocess.Popen] = []

    def start(self) -> None:
        """Start the daemons and wait until the node is idle. Raises RuntimeError with the daemons' logs."""
        for name in ("state", "spool"):
            (self.root / name).mkdir()
        key = self.root / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for number in range(GPUS):  # SLURM wants device nodes; these are further names of /dev/null
            os.mknod(self.root / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        CONFIGURATION.mkdir(exist_ok=True)
        (CONFIGURATION / "slurm.conf").write_text(_SLURM.format(name=NAME, host=self.node, root=self.root, memory_mb=memory_mb * 3 // 4, gpus=GPUS))
        (CONFIGURATION / "gres.conf").write_text(f"NodeName={self.node} Name=gpu Type=pretend File={self.root}/gpu[0-{GPUS - 1}] Flags=nvidia_gpu_env\n")
        self._daemon("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.root}/munge.socket", f"--pid-file={self.root}/munged.pid",
                     f"--log-file={self.root}/munged.log", f"--seed-file={self.root}/munged.seed")
        self._wait(lambda: (self.root / "munge.socket").exists(), "munged makes no socket")
        self._daemon("slurmctld", "-D", "-c")
        self._wait(lambda: "UP" in self.output("scontrol", "ping"), "slurmctld does not answer")
        self.start_node()
        self.wait_for("idle")

    def start_node(self) -> None:
        """Start the node's daemon."""
        self._daemon("slurmd", "-D", "-N", self.node)

    def wait_for(self, state: str) -> None:
        """Wait until the node is in a state, as sinfo names it. Raises RuntimeError with the daemons' logs."""
        self._wait(lambda: state in self.state(), f"the node is not {state}")

    def state(self) -> str:
        """The node's state as sinfo names it."""
        return self.output("sinfo", "--noheader", "--format=%T")

    def node_is(self, *what: str) -> None:
        """Change the node's state by scontrol, for example `state=drain`, `reason=test`."""
        self.output("scontrol", "update", f"nodename={self.node}", *what)

    @staticmethod
    def output(*command: str) -> str:
        """What a command of SLURM's says; errors are part of it."""
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        return done.stdout

    def jobs(self) -> dict[str, str]:
        """State of every job that SLURM remembers, by id."""
        lines = self.output("squeue", "--states=all", "--noheader", "--format=%A %T").split("\n")
        return dict(line.split() for line in lines if line.strip())

    def stop(self) -> None:
        """Cancel what runs, end the daemons, and leave nothing in /etc/slurm."""
        if (CONFIGURATION / "slurm.conf").exists():
            self.output("scancel", "--user=root")
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in ("slurm.conf", "gres.conf"):
            (CONFIGURATION / name).unlink(missing_ok=True)

    def _daemon(self, *command: str) -> None:
        with open(self.root / f"{command[0]}.out", "ab") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent,
                                                  env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}))

    def _wait(self, condition, what: str) -> None:
        deadline = time.monotonic() + START_S
        while not condition():
            if time.monotonic() > deadline:
                logs = "\n".join(f"{path.name}: {path.read_text(errors='replace')[-1500:]}" for path in sorted(self.root.glob("*.[lo][ou][gt]")))
                raise RuntimeError(f"{what} after {START_S:.0f} s\n{self.output('scontrol', 'show', 'node')}\n{logs}")
            time.sleep(0.1)


def _end_with_parent() -> None:
    """In a child, before it becomes a daemon: get SIGTERM when the parent ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
