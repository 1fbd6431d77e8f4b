# make          everything: .venv from pinned requirements, then the whole workflow
# make test     the tests (headless Chromium must be installed for those of the page)
# make test-slurm    the workflow on a SLURM of this one machine: root, apt-get install slurm-wlm munge
# With an environment of your own active, call snakemake and pytest directly.

.PHONY: all test test-slurm readme

all: .venv/ready
	.venv/bin/snakemake --cores all all

test: .venv/ready
	.venv/bin/python -m pytest

test-slurm: .venv/ready .venv/slurm
	.venv/bin/python -m pytest -m slurm tests/test_slurm.py

.venv/slurm: envs/requirements-slurm.txt envs/constraints.txt | .venv/ready
	.venv/bin/python -m pip --disable-pip-version-check install --quiet --constraint envs/constraints.txt --requirement envs/requirements-slurm.txt
	touch $@

readme: .venv/ready ## rewrite README.md's tables from the sources and the recorded evidence, and its picture with headless Chromium
	PYTHONPATH=scripts .venv/bin/python scripts/update_readme.py
	PYTHONPATH=scripts .venv/bin/python scripts/update_picture.py

.venv/ready: envs/requirements.txt envs/constraints.txt envs/nvcc.txt envs/install.sh
	sh envs/install.sh
