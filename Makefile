# make          everything: .venv from pinned requirements, then the whole workflow
# make test     the tests (headless Chromium must be installed for those of the page)
# With an environment of your own active, call snakemake and pytest directly.

.PHONY: all test readme

all: .venv/ready
	.venv/bin/snakemake --cores all all

test: .venv/ready
	.venv/bin/python -m pytest

readme: .venv/ready ## rewrite README.md's tables from the sources and the recorded evidence, and its picture with headless Chromium
	PYTHONPATH=scripts .venv/bin/python scripts/update_readme.py
	PYTHONPATH=scripts .venv/bin/python scripts/update_picture.py

.venv/ready: envs/requirements.txt envs/constraints.txt envs/nvcc.txt envs/install.sh
	sh envs/install.sh
