// SPDX-License-Identifier: MIT
// A directory's files as a tar archive (POSIX ustar), for exports. Pure; any thread.
#pragma once

#include "base/err.h"

// The regular files of `dir`, by name, as "name/FILE", written to fd; what lies deeper is left out. Nothing in the archive depends on time or user.
bool tar_write(int fd, const char *dir, const char *name, struct err *err) MUST_CHECK;
