// SPDX-License-Identifier: MIT
// See supervised.h. Main thread, before any other is started.
#include "server/jobs/supervised.h"

#include "base/mem.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define VARIABLE "COUPLET_SUPERVISED"

void supervised_write(const struct supervised_limits *l, struct buf *out) {
    buf_printf(out, VARIABLE "=parent=%d,nice=%d,memory=%" PRIu64 ",file=%" PRIu64 ",files=%" PRIu64, (int)l->parent, l->nice, l->memory_bytes, l->file_bytes,
               l->open_files);
}

static bool limits_read(const char *text, struct supervised_limits *l, struct err *err) {
    int parent, end = -1;
    if (sscanf(text, "parent=%d,nice=%d,memory=%" SCNu64 ",file=%" SCNu64 ",files=%" SCNu64 "%n", &parent, &l->nice, &l->memory_bytes, &l->file_bytes,
               &l->open_files, &end) != 5 || text[end])
        return err_set(err, ERR_INVALID, "the environment variable " VARIABLE " makes no sense");
    l->parent = parent;
    return true;
}

static void limit_set(__rlimit_resource_t resource, uint64_t bytes) {
    struct rlimit r;
    if (getrlimit(resource, &r) != 0) return;
    r.rlim_cur = r.rlim_max = r.rlim_max == RLIM_INFINITY ? bytes : MIN(bytes, r.rlim_max);
    setrlimit(resource, &r);
}

bool supervised_enter(struct err *err) {
    struct supervised_limits l = {0};
    const char *text = getenv(VARIABLE);
    if (!text) return true;
    if (!limits_read(text, &l, err)) return false;
    prctl(PR_SET_NAME, "couplet"); // it was started as /proc/self/exe
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (l.parent && getppid() != l.parent) return err_set(err, ERR_BUSY, "the server that started this process is gone");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    // Courtesies: where the system refuses one, the others still stand.
    if (l.nice) setpriority(PRIO_PROCESS, 0, l.nice);
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, "500", 3) != 3) fd = (close(fd), -1);
    if (fd >= 0) close(fd);
    limit_set(RLIMIT_CORE, 0);
#if !defined __SANITIZE_ADDRESS__ && !defined __SANITIZE_THREAD__ // their shadow is terabytes of data
    if (l.memory_bytes) limit_set(RLIMIT_DATA, l.memory_bytes);
#endif
    if (l.file_bytes) limit_set(RLIMIT_FSIZE, l.file_bytes);
    if (l.open_files) limit_set(RLIMIT_NOFILE, l.open_files);
    signal(SIGXFSZ, SIG_IGN); // write then says EFBIG
    umask(077);
    return true;
}
