#include "concord/data/fuzz_main.h"

CONCORD_FUZZ(cifar_target)
