/* The passes for processors with AVX2. */

#include "_targets.h"

#ifdef HAS_WIDE_VECTORS
#define LANES 8
#define TARGET __attribute__((target("arch=x86-64-v3")))
#include "_activate_passes.h"

OVER_BLOCKS(activate_part_8, activate_block)
OVER_BLOCKS(activate_back_part_8, activate_back_block)
#endif
