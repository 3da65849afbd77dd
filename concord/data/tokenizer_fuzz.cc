#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(tokenizer_target)
