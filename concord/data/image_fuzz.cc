#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(image_target)
