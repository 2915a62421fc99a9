// SPDX-License-Identifier: MIT
// See failpoint.h. Any thread.
#include "base/failpoint.h"

#ifdef COUPLET_FAILPOINTS
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_POINTS = 32, MAX_NAME = 64 };

static struct point {
    char name[MAX_NAME];
    unsigned long passes;
} points[MAX_POINTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned long count_pass(const char *name) {
    unsigned long passes = 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < MAX_POINTS && !passes; i++) {
        if (!points[i].name[0]) snprintf(points[i].name, MAX_NAME, "%s", name);
        if (strcmp(points[i].name, name) == 0) passes = ++points[i].passes;
    }
    pthread_mutex_unlock(&lock);
    return passes;
}

static int act(const char *action) {
    const char *once = getenv("COUPLET_FAILPOINT_ONCE");
    if (once) {
        int fd = open(once, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0) return 0;
        close(fd);
    }
    if (strncmp(action, "kill", 4) == 0) raise(SIGKILL);
    if (strncmp(action, "abort", 5) == 0) abort();
    if (strncmp(action, "sleep:", 6) == 0) usleep((useconds_t)atoi(action + 6) * 1000);
    return atoi(action);
}

int failpoint(const char *name) {
    const char *at = getenv("COUPLET_FAILPOINT");
    const size_t n = strlen(name);
    for (; at && *at; at += strcspn(at, ","), at += *at == ',') {
        if (strncmp(at, name, n) != 0 || at[n] != '=') continue;
        const size_t count = strcspn(at, "@,");
        const unsigned long wanted = at[count] == '@' ? strtoul(at + count + 1, NULL, 10) : 1;
        return count_pass(name) == wanted ? act(at + n + 1) : 0;
    }
    return 0;
}
#endif
