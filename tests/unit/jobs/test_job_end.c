// SPDX-License-Identifier: MIT
// What a process's end means for its job.
#include "server/jobs/job_end.h"
#include "tests/unit/test.h"

#include <signal.h>

static struct job_exit exit_of(int status, int number) {
    return (struct job_exit){.status = status, .signal = number, .code = "", .message = "", .attempts = 1, .max_attempts = 3};
}

#define JUDGE(e, expected_next, expected_status, expected_code)                 \
    do {                                                                        \
        const struct job_verdict v_ = job_judge(&(e));                          \
        CHECK_INT(v_.next, expected_next);                                      \
        if (v_.next == NEXT_END) CHECK_INT(v_.status, expected_status);         \
        CHECK_STR(v_.code ? v_.code : "", expected_code);                       \
    } while (0)

TEST(a_whole_run_is_published) {
    struct job_exit e = exit_of(0, 0);
    JUDGE(e, NEXT_PUBLISH, 0, "");
    e.wish = WISH_CANCEL;
    JUDGE(e, NEXT_END, JOB_CANCELLED, "");
    e.wish = WISH_PAUSE; // it was faster
    JUDGE(e, NEXT_PUBLISH, 0, "");
}

TEST(wishes) {
    struct job_exit e = exit_of(1, 0);
    e.told = true;
    e.wish = WISH_PAUSE;
    JUDGE(e, NEXT_END, JOB_PAUSED, "");
    e.wish = WISH_NONE; // taken back
    JUDGE(e, NEXT_END, JOB_QUEUED, "");
    e = exit_of(0, SIGKILL); // the grace was over
    e.told = e.draining = true;
    JUDGE(e, NEXT_END, JOB_QUEUED, "");
    e.wish = WISH_CANCEL;
    JUDGE(e, NEXT_END, JOB_CANCELLED, "");
    e = exit_of(1, 0); // it had failed by itself
    e.told = true;
    e.wish = WISH_PAUSE;
    e.code = "non_finite_loss";
    JUDGE(e, NEXT_END, JOB_FAILED, "non_finite_loss");
}

TEST(reasons) {
    static const char *const final[] = {"invalid_training_file", "invalid_model", "non_finite_loss", "no_space", "out_of_memory", "invalid_option"};
    for (size_t i = 0; i < sizeof final / sizeof *final; i++) {
        struct job_exit e = exit_of(1, 0);
        e.code = final[i];
        JUDGE(e, NEXT_END, JOB_FAILED, final[i]);
    }
    struct job_exit e = exit_of(1, 0);
    e.code = "io_error";
    JUDGE(e, NEXT_AGAIN, 0, "io_error");
    e = exit_of(0, SIGABRT);
    e.short_of_memory = true;
    JUDGE(e, NEXT_END, JOB_FAILED, "out_of_memory");
}

TEST(crashes_are_tried_again) {
    static const struct {
        int number;
        bool memory;
        const char *code;
    } ends[] = {{SIGSEGV, false, "trainer_crashed"}, {SIGKILL, false, "trainer_killed"}, {SIGKILL, true, "out_of_memory"}, {SIGABRT, false, "trainer_crashed"}, {0, false, "trainer_failed"}};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        for (unsigned n = 1; n <= 3; n++) {
            struct job_exit e = exit_of(ends[i].number ? 0 : 7, ends[i].number);
            e.attempts = n;
            e.short_of_memory = ends[i].memory;
            JUDGE(e, n < 3 ? NEXT_AGAIN : NEXT_END, JOB_FAILED, ends[i].code);
        }
}

TEST(stalls_are_forgiven_twice) {
    for (unsigned n = 1; n <= 3; n++) {
        struct job_exit e = exit_of(0, SIGKILL);
        e.stalled = true;
        e.stalls = n;
        e.attempts = 10;
        JUDGE(e, n <= 2 ? NEXT_AGAIN : NEXT_END, JOB_FAILED, "trainer_stalled");
    }
}

TEST_MAIN("job_end")
