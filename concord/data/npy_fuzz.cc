#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(npy_target)
