# make demo | make test | make bench | make mmcv | make perceptual | make lint; each works on a fresh clone. PYTHON=python3.12 chooses an interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := .demo

# Threads that wait should not spin: on a busy machine that costs more than half of the time.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test bench mmcv perceptual lint clean
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

# Two processes, a file each: most tests wait for scripts that they start.
test: $(VENV)/.installed-tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

# What this machine can measure: each work beside the straight path in the same run (docs/performance.md).
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

# Compiles mmcv's ops against the installed torch: 13 minutes on two cores. Nothing else depends on it.
# Without its dependencies, because it would bring a second cv2 (see requirements.txt).
mmcv: $(VENV)/.installed
	$(BIN)/pip install --quiet "setuptools<81" wheel addict==2.4.0 yapf==0.43.0 platformdirs pyyaml
	MMCV_WITH_OPS=1 $(BIN)/pip install --no-build-isolation --no-deps mmcv-full==1.7.2
	$(BIN)/python -c "from utils.runtime.device import pick_deform_op; import torch; print(pick_deform_op('mmcv', torch.device('cpu')))"

# LPIPS and NIQE. Without pyiqa's dependencies, which bring a second cv2 (see requirements.txt) and another `datasets`.
perceptual: $(VENV)/.installed
	$(BIN)/pip install --quiet --no-deps pyiqa==0.1.16
	$(BIN)/pip install --quiet requests==2.34.2 huggingface_hub==2.4.0

$(VENV)/.installed: requirements.txt
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else \
	    f'Python 3.10 to 3.12 is needed, $(PYTHON) is {v[0]}.{v[1]}; try make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed tests/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

clean:
	rm -rf $(VENV) $(DEMO)
