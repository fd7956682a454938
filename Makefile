# README commands: `make serve` and `make test`. The rest: see README, "For developers".

PYTHON ?= python3
MODELS ?= models
VENV := .venv
DEV := .venv-dev
KSERVE := .venv-kserve
RAY := .venv-ray
SUPPLY := .venv-supply
LINTERS := .venv-deployment
SOURCES := service training dunno_client tests load_tests k8s docs

# Compiled files halve the start of each program that tests run; some machines switch them off.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve test check fmt lint types train reference verdicts load bench image sbom audit lock clean

serve: $(VENV)/installed
	$(VENV)/bin/dunno serve

test: $(DEV)/installed
	$(DEV)/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile -m "not slow"

# With DUNNO_CHECK_DEPLOYMENT set, as CI has it, nothing that .ci/deployment installs may lack.
check: $(DEV)/installed $(KSERVE)/installed $(RAY)/installed $(if $(DUNNO_CHECK_DEPLOYMENT),$(LINTERS)/installed)
	$(DEV)/bin/ruff format --check $(SOURCES)
	$(DEV)/bin/ruff check $(SOURCES)
	$(DEV)/bin/codespell
	$(DEV)/bin/mypy
	DUNNO_CHECK=1 $(MAKE) test
	DUNNO_CHECK=1 $(DEV)/bin/python -m pytest -m slow

fmt: $(DEV)/installed
	$(DEV)/bin/ruff format $(SOURCES)
	$(DEV)/bin/ruff check --fix $(SOURCES)

train: $(DEV)/installed
	@test -n "$(NAME)" || { echo "make train NAME=wine|mnist|fashion_mnist|imdb|iris|titanic"; exit 2; }
	$(DEV)/bin/dunno train $(NAME) $(ARGS)

# The pages of docs/reference that are made from the code.
reference: $(DEV)/installed
	$(DEV)/bin/python docs/reference/generate.py

# Numbers and pictures of docs/verdicts.md, of the bundles and the data.
verdicts: $(DEV)/installed
	$(DEV)/bin/python docs/verdicts.py

# Against other servers, by a harness that lies beside this repository; on a quiet machine.
BENCH ?= ../shared/bench
PEERS ?= mosec@2,plain_fastapi@2,proto@2
bench: $(DEV)/installed
	BENCH_PEERS=$(CURDIR)/load_tests/bench_peers $(BENCH)/run.sh \
		--peers "ours@2+VENV=$(CURDIR)/$(DEV),$(PEERS)" --concurrency 1,64,256 --body json,png,f32 \
		--seconds 5 --rounds 3 $(ARGS)

load: $(DEV)/installed
	$(DEV)/bin/python load_tests/run_all.py $(ARGS)

# The container image of a lock file in requirements/: service, tensorflow or gpu. The last one needs
# a base with CUDA, cuDNN and Python: make image VARIANT=gpu ARGS="--build-arg BASE=…"
VARIANT ?= service
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= dunno:$(VERSION)$(if $(filter-out service,$(VARIANT)),-$(VARIANT))
image:
	buildah bud --layers --format docker --tag $(IMAGE) --build-arg LOCK=$(VARIANT) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) $(ARGS) .

# What the service consists of, as CycloneDX, with licences; from what is installed by the lock file.
SBOM ?= sbom.json
sbom: $(VENV)/installed $(SUPPLY)/installed
	$(SUPPLY)/bin/cyclonedx-py environment $(VENV)/bin/python --pyproject pyproject.toml \
		--output-reproducible --output-format JSON --output-file $(SBOM) $(ARGS)

# Whether vulnerabilities are known of it; exit code 3 if no database can be asked.
audit: $(SUPPLY)/installed
	AUDIT=$(CURDIR)/$(SUPPLY)/bin/pip-audit .ci/audit $(ARGS)

# $(call install,VENV,LOCK[,editable]): makes VENV, installs requirements/LOCK.txt and, with a third argument, this
# project. Lock files are complete, so pip resolves nothing (--no-deps) and releases newer than the lock change nothing.
define install
@$(PYTHON) -c "import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or \
	sys.exit('Dunno needs Python 3.11 to 3.13, $(PYTHON) is %d.%d. Choose another: make PYTHON=python3.13' % v)"
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python -m pip install --quiet --no-deps --require-hashes --only-binary :all: -r requirements/$(2).txt
$(if $(3),$(1)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .)
$(1)/bin/python -m pip check
@touch $(1)/installed
endef

# The service alone: no TensorFlow.
$(VENV)/installed: requirements/service.txt pyproject.toml
	$(call install,$(VENV),service,editable)

# Everything that tests, training and checks need.
$(DEV)/installed: requirements/dev.txt pyproject.toml
	$(call install,$(DEV),dev,editable)

# KServe's client, which needs other versions of many packages; for one contract test.
$(KSERVE)/installed: requirements/kserve.txt
	$(call install,$(KSERVE),kserve)

# The service and Ray, which brings half a gigabyte; for docs/examples/ray_predict.py.
$(RAY)/installed: requirements/ray.txt pyproject.toml
	$(call install,$(RAY),ray,editable)

# Tools for `sbom` and `audit`, with more packages than the service has.
$(SUPPLY)/installed: requirements/supply.txt
	$(call install,$(SUPPLY),supply)

# Linters of image and manifests, which pin many packages.
$(LINTERS)/installed: requirements/deployment.txt
	$(call install,$(LINTERS),deployment)

# Resolve for every supported Python; needs `uv` on the PATH. LOCK_ARGS= keeps the versions that are locked now.
# Extras are kept: a pip that does resolve then finds every requirement pinned, `coverage[toml]` too.
LOCK_ARGS ?= --upgrade
LOCK := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header $(LOCK_ARGS) pyproject.toml

lock:
	$(LOCK) requirements/build.in --extra tracing --output-file requirements/service.txt
	$(LOCK) requirements/build.in --extra tensorflow --extra tracing --output-file requirements/tensorflow.txt
	$(LOCK) requirements/build.in --extra training --output-file requirements/training.txt
	$(LOCK) requirements/build.in --extra training --extra dev --output-file requirements/dev.txt
	$(LOCK) requirements/build.in --extra gpu --extra tracing --override requirements/gpu.override \
		--output-file requirements/gpu.txt
	$(LOCK) requirements/build.in requirements/ray.in --output-file requirements/ray.txt
	$(subst pyproject.toml,,$(LOCK)) requirements/kserve.in --output-file requirements/kserve.txt
	$(subst pyproject.toml,,$(LOCK)) requirements/supply.in --output-file requirements/supply.txt
	$(subst pyproject.toml,,$(LOCK)) requirements/deployment.in --output-file requirements/deployment.txt

clean:
	rm -rf $(VENV) $(DEV) $(KSERVE) $(RAY) $(SUPPLY) $(LINTERS) $(SBOM) build dist *.egg-info .mypy_cache \
		.ruff_cache .pytest_cache
