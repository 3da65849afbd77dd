#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(task_target)
