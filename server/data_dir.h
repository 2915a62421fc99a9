// SPDX-License-Identifier: MIT
// The data directory's layout, and the lock that keeps it to one server. Thread: main, before the server runs.
//   couplet.db, keys, lock | files/FILE-ID | models/MODEL-ID/ | jobs/JOB-ID/ | tmp/ (emptied at every start)
#pragma once

#include "base/err.h"

// Makes what is missing, takes the lock, empties tmp/. Returns the lock's descriptor, which holds it until it is closed; -1: *err.
int data_dir_open(const char *path, struct err *err) MUST_CHECK;
