# Two commands are all a newcomer needs: `make demo` and `make test`. Each sets itself up.
PYTHON ?= python3
VENV := .venv
JUDGES := .venv-judges
MAMBA := .venv-mamba
TRITON := 3.9.0
OLD_TRITON := .venv-triton36
INGEST_PEERS := .venv-ingest-peers
PEERS_PYTHON ?= python3.12
BIN := $(VENV)/bin
# Any value: tests also count the lines that they reach, nine of ten at least, and take longer. CI does.
COVERAGE ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.PHONY: help demo truth test long lint judges bbbc013 study bench ingest-peers ingest-bench hopper triton36 interpreter slurm docs torture soak clean

help:  ## Show the targets.
	@grep -hE '^[a-zA-Z0-9_-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --constraint constraints.txt torch
	$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@# A torch with CUDA brings the Triton that it wants; its kernels are tested without a GPU, too.
	@$(BIN)/python -c 'import triton' 2>/dev/null || test "$$(uname -s)" != Linux || $(PIP) install --no-deps triton==$(TRITON)
	@touch $@

.venv: $(VENV)/.installed

$(JUDGES)/.installed: tests/judges/requirements.txt tests/judges/no_deps.txt
	$(PYTHON) -m venv $(JUDGES)
	$(JUDGES)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --requirement tests/judges/requirements.txt
	$(JUDGES)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-deps --requirement tests/judges/no_deps.txt
	@touch $@

# The Python of mamba-ssm alone: its scan in plain torch judges ours on machines that cannot compile CUDA.
$(MAMBA)/.installed: tests/kernels/mamba_requirements.txt $(VENV)/.installed
	MAMBA_FORCE_BUILD=TRUE MAMBA_SKIP_CUDA_BUILD=TRUE $(PIP) install --no-cache-dir --no-deps --no-build-isolation --upgrade --target $(MAMBA) --requirement $<
	@touch $@

judges: $(JUDGES)/.installed $(MAMBA)/.installed  ## Install what others wrote to judge us by: readers of our stores, a scan.

demo: $(VENV)/.installed  ## Synthetic plates to a report, offline: demo/report/report.html
	$(BIN)/cellvim demo --out demo

truth: demo  ## Does that demo find what was put in, nothing in shuffled labels, and the same bytes twice?
	OMP_NUM_THREADS=1 $(BIN)/pytest -n0 -m truth tests/demo

lint: $(VENV)/.installed  ## Style, types and import contracts.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.installed $(JUDGES)/.installed $(MAMBA)/.installed lint  ## Everything that must hold before a change lands.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 10 $(if $(COVERAGE),--cov --cov-report term:skip-covered)

long: $(VENV)/.installed  ## Benchmarks and studies from end to end, in small.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile -m long

bbbc013: $(VENV)/.installed  ## A real screen to a report, three trainings: needs ../shared/data/bbbc013, takes a quarter of an hour.
	$(BIN)/python -m pipelines.bbbc013 --source ../shared/data/bbbc013 --out out/bbbc013 --seeds 0 1 2 --docs docs/bbbc013.md

study: $(VENV)/.installed  ## Which settings of the model matter: about 80 nano trainings, an hour and a quarter on two cores; needs ../shared/data/bbbc013.
	$(BIN)/python -m pipelines.model_study --source ../shared/data/bbbc013 --out out/model_study --docs docs/model_study.md --workers 2 --confirm

bench: $(VENV)/.installed  ## Speed and memory tables.
	$(BIN)/python -m benchmarks.cpu --out out/cpu
	$(BIN)/python -m benchmarks.evaluate --docs docs/evaluate_speed.md
	$(BIN)/python benchmarks/training.py --docs docs/training_speed.md
	$(BIN)/python -m benchmarks.ingest
	$(BIN)/python -m benchmarks.embed --docs docs/embed_speed.md
	$(BIN)/python -m benchmarks.study --docs docs/study_speed.md

$(INGEST_PEERS)/.installed: benchmarks/ingest_peers_requirements.txt
	$(PEERS_PYTHON) -m venv $(INGEST_PEERS)
	$(INGEST_PEERS)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --requirement $<
	@touch $@

ingest-peers: $(INGEST_PEERS)/.installed  ## Install the writers that ingest is timed beside: needs Python 3.12, takes a gigabyte.

ingest-bench: $(VENV)/.installed $(INGEST_PEERS)/.installed  ## Ingest beside its peers, about a quarter of an hour; ../shared/data gives real planes: docs/ingest_speed.md
	$(BIN)/python -m benchmarks.ingest --docs docs/ingest_speed.md

hopper: $(VENV)/.installed  ## Registers, spills and instructions of every Triton kernel on a Hopper GPU, compiled anywhere.
	$(BIN)/python -m benchmarks.hopper --check

$(OLD_TRITON)/.installed: constraints.txt
	$(PYTHON) -m venv $(OLD_TRITON)
	$(OLD_TRITON)/bin/python -m pip --disable-pip-version-check --quiet --quiet install torch==2.13.0 'numpy<2.4' jaxtyping
	$(OLD_TRITON)/bin/python -m pip --disable-pip-version-check --quiet --quiet install --no-deps triton==3.6.0
	@touch $@

triton36: $(OLD_TRITON)/.installed  ## The same with Triton 3.6, and its interpreter against the equation.
	PYTHONPATH=kernels $(OLD_TRITON)/bin/python -m benchmarks.hopper --check
	PYTHONPATH=kernels TRITON_INTERPRET=1 CELLVIM_KERNEL=triton $(OLD_TRITON)/bin/python -m benchmarks.gpu --only correctness --device cpu

interpreter: $(VENV)/.installed  ## Every case of the Triton kernels in Triton's interpreter, published models included: a quarter of an hour.
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist load -m interpreter --timeout 1200

torture: $(VENV)/.installed  ## Kills, full disks, rivals, hostile files and 7,500 damaged ones, within the hour: docs/reliability.md; needs ../shared/data and Chromium.
	$(BIN)/python -m pipelines.torture --out out/torture --docs docs/reliability.md

soak: $(VENV)/.installed  ## Plate after plate for half an hour: memory, file handles and temporary files; needs ../shared/data.
	$(BIN)/python -m pipelines.torture.soak --out out/soak --docs docs/reliability.md

slurm: $(VENV)/.installed  ## Studies and pretraining on a real Slurm; where there is none, `tests/slurm/cluster.sh start` makes one.
	@scontrol ping >/dev/null 2>&1 || { echo 'error: no Slurm answers; tests/slurm/cluster.sh start makes one' >&2; exit 2; }
	OMP_NUM_THREADS=1 $(BIN)/pytest -n0 --durations 5 tests/slurm
	$(BIN)/python -m benchmarks.study --only slurm --rounds 1

docs: $(VENV)/.installed  ## The documentation, readable offline: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

clean:  ## Remove environments and outputs made here.
	rm -rf $(VENV) $(JUDGES) $(MAMBA) $(OLD_TRITON) $(INGEST_PEERS) demo out site
