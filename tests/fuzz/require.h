/* What a fuzz target holds to be true of any input. */
#ifndef WEIR_FUZZ_REQUIRE_H
#define WEIR_FUZZ_REQUIRE_H

#include <stdbool.h>
#include <stdlib.h>

static inline void
require(bool ok)
{
    if (!ok)
        abort();
}

#endif
