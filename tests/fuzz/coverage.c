/* Which steps the code of a body's reader took: an entry for each pair of branches, as AFL counts. */

#include <stdint.h>

uint8_t steps_taken[1 << 16];
static uintptr_t before;

void __sanitizer_cov_trace_pc(void)
{
    uintptr_t here = (uintptr_t)__builtin_return_address(0);
    steps_taken[(here ^ before) & 0xffff] = 1;
    before = here >> 1;
}
