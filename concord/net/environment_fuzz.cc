#include "concord/base/fuzz_main.h"
#include "concord/net/test_parsers.h"

CONCORD_FUZZ(concord::net::environment_target)
