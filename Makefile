# make demo | make test | make quick | make bench | make video | make mmcv | make perceptual | make lint | make lock; each
# works on a fresh clone. PYTHON=python3.13 chooses the interpreter of a new environment; `make clean` removes an old one.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo
UV := .uv
UV_VERSION := 0.13.9

# Waiting threads should not spin: on a busy machine that costs more than half of the time.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test quick bench video mmcv mmcv-full onedl-mmcv perceptual lint lock clean
.DELETE_ON_ERROR:

# Restores and scores the bundled test picture; then trains every stage for a few steps, and tests the result.
demo: $(VENV)/.installed
	rm -rf $(DEMO)
	$(BIN)/python D_testing.py --testset_dir samples/GOPRO --save_dir $(DEMO)/restored --figures --device cpu
	$(BIN)/python DR_training.py --stage all --trainset_dir samples/GOPRO --output_dir $(DEMO)/networks \
	    --log_dir $(DEMO)/log --batch_size 1 --patch_size 64 --max_steps 40 --num_workers 0 --device cpu
	$(BIN)/python D_testing.py --testset_dir samples/GOPRO --weights $(DEMO)/networks/DeblurringNet_FT.pth \
	    --save_dir $(DEMO)/results --device cpu
	@echo "Restored with the bundled network: open $(DEMO)/restored/report.html."
	@echo "Trained in 40 steps, which shows that everything runs and sharpens nothing: $(DEMO)/networks, $(DEMO)/results"
	@echo "(TensorBoard: $(BIN)/tensorboard --logdir $(DEMO)/log)"

# Three processes, a file each: tests wait a quarter of their time. In the order of the folders: by their numbers of
# tests, the longest files would come last.
test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

# What takes no more than about a second a test and starts no process: every package in less than a minute, all in two.
quick: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

# What this machine can measure: each work and the baseline in the same run (docs/performance.md).
bench: $(VENV)/.installed
	$(BIN)/python -m tools.benchmark --work data --size 256 256 --batch 48
	$(BIN)/python -m tools.benchmark --work deblur --repeats 2
	$(BIN)/python -m tools.benchmark --work deblur --precision bf16 --repeats 2
	$(BIN)/python -m tools.benchmark --work reblur --repeats 3
	$(BIN)/python -m tools.benchmark --work finetune_step --batch 1 --size 256 256 --repeats 2

lint: $(VENV)/.installed-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/shellcheck recipes/*.sh .ci/run

# Videos, by PyAV. Its wheels carry FFmpeg with x264 and x265.
video: $(VENV)/.installed
	@echo "PyAV's wheels hold x264 and x265: GPL-2.0 or later, as is whatever they are passed on in (docs/install.md)"
	$(BIN)/pip install --quiet --no-deps --constraint tests/requirements.lock av

# mmcv's operators, compiled against the installed torch: 13 minutes on two cores. Nothing else depends on them.
# torch 2.14 and newer want C++20: there the fork that is maintained, whose setup.py still asks for C++17.
# Without their dependencies, which would bring a second cv2 (see requirements.txt). Ninja compiles in parallel. Without
# pip's cache, which would give what was compiled against another torch.
MMCV := $(VENV)/mmcv
MMCV_BUILD = MMCV_WITH_OPS=1 PATH="$(abspath $(BIN)):$$PATH" $(BIN)/pip --no-cache-dir
mmcv: $(VENV)/.installed
	$(BIN)/pip uninstall --quiet --quiet --yes mmcv-full mmcv onedl-mmcv
	$(BIN)/pip install --quiet "setuptools<81" wheel ninja==1.13.2 addict==2.4.0 yapf==0.43.0 platformdirs pyyaml
	$(MAKE) $$($(BIN)/python -c "import torch; print('onedl-mmcv' if torch.__version__ >= (2, 14) else 'mmcv-full')")
	$(BIN)/python -c "from utils.runtime.device import pick_deform_op, pick_device; \
	    print('ready: --deform_op', pick_deform_op('mmcv', pick_device('auto'), 32, 'fp32', training=False))"

mmcv-full:
	@echo "mmcv-full 1.7.2, for torch older than 2.14"
	$(MMCV_BUILD) install --no-build-isolation --no-deps mmcv-full==1.7.2

onedl-mmcv:
	@echo "onedl-mmcv 2.3.6, the fork of mmcv that is maintained, for torch 2.14 and newer"
	$(BIN)/pip install --quiet rich==15.0.0 termcolor==3.3.0
	$(BIN)/pip install --quiet --no-deps onedl-mmengine==0.10.12
	rm -rf $(MMCV)
	$(MMCV_BUILD) download --quiet --no-build-isolation --no-deps --no-binary :all: --dest $(MMCV) onedl-mmcv==2.3.6
	tar --extract --file $(MMCV)/onedl_mmcv-2.3.6.tar.gz --directory $(MMCV) --strip-components 1
	sed -i.old 's/std=c++17/std=c++20/' $(MMCV)/setup.py
	$(MMCV_BUILD) install --no-build-isolation --no-deps $(MMCV)/
	rm -rf $(MMCV)

# LPIPS and NIQE. Without pyiqa's dependencies, which bring a second cv2 (see requirements.txt) and another `datasets`.
perceptual: $(VENV)/.installed
	@echo "pyiqa is for non-commercial use only: PolyForm Noncommercial 1.0.0, parts of it S-Lab License 1.0 (docs/install.md)"
	$(BIN)/pip install --quiet --no-deps pyiqa==0.1.16
	$(BIN)/pip install --quiet requests==2.34.2 huggingface_hub==2.4.0

# Rewrites the locks from the requirements: versions in a lock that still fit are kept. LOCK=--upgrade takes the
# newest of what requirements leave open, LOCK="--upgrade-package NAME" of one. Wheels alone: nothing is built.
LOCK_COMMAND = $(UV)/bin/uv --no-config --quiet pip compile --universal --python-version 3.10 --only-binary :all: \
    --custom-compile-command "make lock" $(LOCK)
lock:
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(LOCK_COMMAND) requirements.txt --output-file requirements.lock
	$(LOCK_COMMAND) tests/requirements.txt --constraint requirements.lock --output-file tests/requirements.lock

# Without dependencies: the locks list all of them, and nothing else is to come.
$(VENV)/.installed: requirements.lock
	$(PYTHON) -c "import sys; v = sys.version_info[:3]; sys.exit(None if (3, 10) <= v[:2] <= (3, 14) and v != (3, 14, 1) else \
	    'Python 3.10 to 3.14 is needed, but for 3.14.1, which torchvision refuses; $(PYTHON) is %d.%d.%d; ' % v + \
	    'try make PYTHON=python3.13 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r tests/requirements.lock
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) $(UV)
