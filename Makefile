# Each target is a line or two of plain pip and Python; the README shows the same lines for those without make.
PYTHON ?= python3

.PHONY: install demo test test-arm64 test-images

install: .venv/.installed

# The stamp: a second `make` installs again only when the project's metadata or the tested set has changed.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -c constraints.txt -e '.[train,dev]'
	touch $@

demo: install
	.venv/bin/kdeploy run quickstart

test: install
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports
	.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not arm64 and not images'

# As root, with the packages that .ci/run installs. They fail instead of being skipped where something is missing.
test-arm64: install
	KDEPLOY_REQUIRE_ARM64=1 .venv/bin/pytest -n 2 --dist loadfile -m arm64 tests

# As root, with the same packages and Buildah: some ten minutes, and 7 GB of disk for a while.
test-images: install
	KDEPLOY_REQUIRE_IMAGES=1 .venv/bin/pytest -m images tests
