# make demo: install and run the miniature end to end.  make test: install and run every test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
OUT ?= reports/demo

.PHONY: demo test lint bench gpu validate validate-large fuzz clean install test-install test-kill test-real test-tex test-ray test-server

install: $(VENV)/.installed
test-install: $(VENV)/.installed-test

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone: resolved together with the rest, a newer build with CUDA packages could be chosen.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

demo: $(VENV)/.installed
	$(BIN)/analyzer demo -o $(OUT)

# two processes, one thread each: a test file stays in one of them
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config setup.cfg
	$(BIN)/mypy

bench: $(VENV)/.installed
	{ $(BIN)/python benchmarks/bench_score.py; $(BIN)/python benchmarks/bench_stats.py --exponent; \
	  $(BIN)/python benchmarks/bench_dumps.py; } | tee benchmarks/RESULTS.md

# on a machine with a card: every CUDA path against float64, and its speed (made to fit eight minutes; not run on a card yet)
gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/gpu.py

validate: $(VENV)/.installed
	$(BIN)/python -m validation --out docs

# words at up to 5,000 tokens and 500 problems x 256 draws: half an hour, 5 GB
validate-large: $(VENV)/.installed
	$(BIN)/python -m validation --gates V15 --out docs/large

fuzz: $(VENV)/.installed-test
	FUZZ=10000 $(BIN)/python -m pytest tests/dumps/test_fuzz.py

# bars on a real model that is trained here, in the user's cache after the first time: about 45 minutes (estimated from a smaller run), 6 GB, 3 GB of disk
test-real: $(VENV)/.installed-test
	$(BIN)/python -m validation.real --out reports/smollm2

# kill -9 at random moments of score, and at every write
test-kill: $(VENV)/.installed-test
	KILLS=50 $(BIN)/python -m pytest tests/runs/test_kill.py tests/runs/test_kill_others.py

# key.tex in a page of two columns; needs pdflatex (Debian: texlive-latex-recommended)
test-tex: $(VENV)/.installed-test
	TEX=1 $(BIN)/python -m pytest tests/pages/test_paper.py

# a local Ray cluster of two workers, one of which is killed
test-ray: $(VENV)/.installed-test
	$(BIN)/pip install -q -c constraints.txt -e '.[ray]'
	RAY=1 $(BIN)/python -m pytest tests/scoring/test_cluster.py

# a real completions server, llama-cpp-python's (pip builds it, some minutes)
test-server: $(VENV)/.installed-test
	$(BIN)/pip install -q -c constraints.txt -e '.[server-test]'
	$(BIN)/python -m pytest -s tests/server/llama_cpp_server.py

clean:
	rm -rf $(VENV) build dist *.egg-info reports/demo
