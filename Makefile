# The developer's front door. CMake does the work; see CMakePresets.json for the variants.
PRESET ?= release

.PHONY: build test demo bench deps check tidy format clean

deps:
	@tools/install_dependencies

build: deps
	@cmake --preset $(PRESET) >/dev/null && cmake --build --preset $(PRESET)

test: build
	@ctest --preset $(PRESET)

# Trains the example anew: a run folder that an earlier demo left is removed.
demo: build
	@rm -rf runs/demo
	@build/$(PRESET)/concord train examples/fashion_mnist.toml --set output.dir=runs/demo --json

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
