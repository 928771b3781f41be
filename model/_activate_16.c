/* The passes for processors with AVX-512. */

#include "_targets.h"

#ifdef HAS_WIDE_VECTORS
#define LANES 16
#define TARGET __attribute__((target("arch=x86-64-v4")))
#include "_activate_passes.h"

OVER_BLOCKS(activate_part_16, activate_block)
OVER_BLOCKS(activate_back_part_16, activate_back_block)
#endif
