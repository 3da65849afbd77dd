#include "concord/base/fuzz_main.h"
#include "concord/data/test_data.h"

CONCORD_FUZZ(concord::data::image_target)
