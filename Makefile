# The developer's front door. CMake does the work; see CMakePresets.json for the variants.
PRESET ?= release

.PHONY: build test demo demo-gpt bench deps check tidy format clean

deps:
	@tools/install_dependencies

build: deps
	@cmake --preset $(PRESET) >/dev/null && cmake --build --preset $(PRESET)

test: build
	@ctest --preset $(PRESET)

# Trains the example anew: a run folder that an earlier demo left is removed. Ranks use all cores, as
# many as share the eight leaves of a step.
RANKS ?= $(shell nproc | awk '{print ($$1 < 8 ? $$1 : 8)}')
demo: build
	@rm -rf runs/demo
	@build/$(PRESET)/concord train examples/fashion_mnist.toml --ranks $(RANKS) \
	  --set output.dir=runs/demo --json

# Trains a gpt on the King James Bible, from Debian's package bible-kjv, and lets it write.
demo-gpt: build
	@mkdir -p data/bible && rm -rf runs/demo-gpt
	@bible -f gen1:1-rev22:21 | cut -d' ' -f2- > data/bible/train.txt
	@build/$(PRESET)/concord tokenize --train data/bible/train.txt --vocabulary 4096 \
	  --out data/bible/tokenizer.json
	@build/$(PRESET)/concord train examples/gpt_bible.toml --set output.dir=runs/demo-gpt --json
	@build/$(PRESET)/concord predict examples/gpt_bible.toml --checkpoint runs/demo-gpt \
	  --prompt "In the beginning" --tokens 200 --top-k 40

# Times the works of bench/configs beside PyTorch and writes docs/benchmarks.md. PEERS: the Pythons
# that have it, as python3,/opt/torch/bin/python.
bench: build
	@bench/compare

check:
	@tools/check

tidy:
	@tools/tidy

format:
	@tools/format

clean:
	@rm -rf build
