/* The passes for every processor. */

#define LANES 4
#define TARGET
#include "_activate_passes.h"

OVER_BLOCKS(activate_part_4, activate_block)
OVER_BLOCKS(activate_back_part_4, activate_back_block)
