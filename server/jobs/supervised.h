// SPDX-License-Identifier: MIT
// A process of ours that the server started: it makes itself small before it begins, because libuv can run nothing between fork and exec.
// The server hands the limits over in one environment variable; every command of the program heeds it.
#pragma once

#include "base/buf.h"

#include <sys/types.h>

struct supervised_limits {
    pid_t parent;  // who must still be there; 0: not looked at (a launcher lies between)
    int nice;
    uint64_t memory_bytes; // of data; 0: none
    uint64_t file_bytes;   // of one file; 0: none
    uint64_t open_files;   // 0: as they are
};

void supervised_write(const struct supervised_limits *l, struct buf *out); // "COUPLET_SUPERVISED=parent=1,nice=19,..."
// What main does first. Without the variable: nothing. Dies with its parent (PDEATHSIG), gives way (nice, SCHED_BATCH), is the first to go when memory is
// short, gains no privileges, dumps no core, makes files for its owner alone. False: the parent is gone already, or the variable makes no sense.
bool supervised_enter(struct err *err) MUST_CHECK;
