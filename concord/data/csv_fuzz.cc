#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(csv_target)
