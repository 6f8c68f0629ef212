# make train: from a bare Python 3.11 to a trained, compared, pictured policy.   make test: linters, types, pages and tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SEED ?= 0
STEPS ?= -1
EPISODES ?= 200
DATASET ?=
CATEGORIES ?=
SEGMENTER ?=
CLIP ?=
KWARGS ?=
ENV ?= SamSeg-v0
OUT ?= runs/seed$(SEED)
EVALUATE ?=
WHAT = $(if $(CLIP),--clip "$(CLIP)") $(if $(KWARGS),--env-kwargs $(KWARGS)) $(if $(DATASET),--dataset "$(DATASET)") $(if $(CATEGORIES),--categories $(CATEGORIES)) $(if $(SEGMENTER),--segmenter "$(SEGMENTER)")

# Threads that wait by spinning slow small models down thirtyfold as soon as anything else runs on the machine.
export OMP_WAIT_POLICY ?= passive

.PHONY: train assets test test-lowest check docs install clean

$(BIN)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[zoo,test]"
	touch $@

install: $(BIN)/.installed

train: install
	$(BIN)/python scripts/train.py --algo ppo_mask --env $(ENV) --seed $(SEED) -n $(STEPS) --eval-freq -1 \
		--log-interval 10 --log-folder "$(OUT)" $(WHAT)
	@run=$$(ls -td "$(OUT)"/ppo_mask/$(ENV)_*/ | head -1) && \
	$(BIN)/python -m alignsam_sb3.evaluation --policy "$${run}$(ENV).zip" --env $(ENV) --episodes $(EPISODES) \
		--seed $(SEED) --out "$${run}evaluation" $(EVALUATE) && \
	echo "Policy:   $${run}$(ENV).zip" && echo "Films:    $${run}films/ (.gif, .png)" && \
	echo "Overlays: $${run}evaluation/overlays/"

# What hears the embedded SAM and CLIP, fitted and measured again after one of them changed: about 3 hours of one core, half
# of that with -j2. The last line prints README's table. Finished parts are kept: the same command goes on.
REFIT ?= runs/assets
REWARD = $(BIN)/python -m alignsam_sb3.rewards.network
NAMED = --dataset toy:semantic --dataset-kwargs min_area=0.02
SEEDS = 0 1 2 3 4
assets: export OMP_NUM_THREADS = 1
assets: $(SEEDS:%=$(REFIT)/seed%/done)
	$(REWARD) measure --network tiny --dataset toy:saliency --images 300 --out $(REFIT)/reward
	$(REWARD) measure --network tiny_named $(NAMED) --images 300 --out $(REFIT)/named
	$(BIN)/python scripts/studies/summarise.py $(REFIT)/seed*/ppo_mask/SamSeg-v0_*/evaluation/results.json

$(REFIT)/reward/done: | install
	$(REWARD) fit --dataset toy:saliency --full --steps 3000 --out $(@D)
	cp $(@D)/reward_network.safetensors alignsam_sb3/assets/tiny_reward.safetensors
	touch $@

$(REFIT)/named/done: | install
	$(REWARD) fit $(NAMED) n_images=4000 --init tiny_named --clip tiny --full --images 6000 --steps 3500 --lr 0.0015 \
		--seed 2 --out $(@D)
	cp $(@D)/reward_network.safetensors alignsam_sb3/assets/tiny_reward_named.safetensors
	touch $@

$(REFIT)/seed%/done: $(REFIT)/reward/done $(REFIT)/named/done
	$(MAKE) train SEED=$* EPISODES=400 OUT=$(@D) EVALUATE="--reward-network tiny_named"
	touch $@

test: install check docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n $$(nproc) --dist worksteal

# The quick tests with the lowest versions that setup.cfg allows, in an environment of its own (torch is several GB).
test-lowest:
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)-lowest/bin/uv pip install --quiet --python $(VENV)-lowest --resolution lowest-direct -e ".[zoo,test]"
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -m "not slow" -n $$(nproc) --dist worksteal

# Types and imports are checked on a copy laid out as it installs: envs/ inside the package.
check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/tree && mkdir -p build/tree && cp -r alignsam_sb3 build/tree/ && cp -r envs hyperparams build/tree/alignsam_sb3/
	cp pyproject.toml setup.cfg build/tree/
	cd build/tree && ../../$(BIN)/mypy -p alignsam_sb3
	cd build/tree && PYTHONPATH=. ../../$(BIN)/lint-imports

# The pages, from docs/ and the docstrings; a warning is an error.
docs: install
	$(BIN)/python scripts/assets/draw_layers.py
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

clean:
	rm -rf build dist .venv* docs/_build *.egg-info
