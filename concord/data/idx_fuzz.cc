#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(idx_target)
