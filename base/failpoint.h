// SPDX-License-Identifier: MIT
// Named places where a test can make the program die, wait or fail. Only where meson was told -Dfailpoints=true; otherwise nothing is left of them.
//
// COUPLET_FAILPOINT="NAME=ACTION[@COUNT],...": at the COUNT-th pass (1) of NAME: `kill` (SIGKILL to itself), `abort`, `sleep:MS`, or a number,
// which failpoint() returns as errno of what would have come next. COUPLET_FAILPOINT_ONCE=PATH: of all processes that see the variable only the
// first one acts; it makes PATH.
#pragma once

#ifdef COUPLET_FAILPOINTS
int failpoint(const char *name); // 0: go on
#else
static inline int failpoint(const char *name) { return 0; }
#endif
