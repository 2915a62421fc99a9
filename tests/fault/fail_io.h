// SPDX-License-Identifier: MIT
// fail_io.c linked into a test instead of preloaded: the same, set by a call. Not while other threads do I/O.
#pragma once

#include <stdbool.h>

bool fail_io_set(const char *spec); // as FAIL_IO; NULL: nothing fails any more. Counting begins again. false: it cannot be read
bool fail_io_hit(void);             // a call was made to fail since then
