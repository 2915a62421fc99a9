// SPDX-License-Identifier: MIT
// Every call that changes the disk fails once, in turn, in a short life of a store: the change it belonged to is refused with a clear error and has
// left nothing behind, everything else stands, and what was refused works afterwards. Then the same with a disk that stays broken, and with kill -9.
#include "tests/fault/fail_io.h"
#include "tests/unit/store/fixture.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum { STEPS = 7 };
static const char *const step_names[STEPS] = {"file_add", "job_create", "job_claim", "job_progress", "job_finish", "alias_put", "file_remove"};

static bool step_do(struct store *s, int step) {
    struct stored_job j;
    const char *const *models;
    struct stored_event e = {.once = "step-5", .message = "five"};
    struct stored_model m = {.id = "ft:step", .dir = "models/1", .step = 5, .checkpoint = true}, done = {.id = "ft:done", .dir = "models/2"};
    struct stored_checkpoint c = {.step = 5, .model = m.id};
    struct stored_file f = {.id = "file-result", .filename = "r", .purpose = "fine-tune-results", .sha256 = ""};
    switch (step) {
    case 0: return file_add(s, "file-new", "alice", false);
    case 1: return job_add(s, "ftjob-1", "alice", "file-kept", NULL);
    case 2: return store_job_claim(s, "here", INT64_MAX, &arena, &j, &err);
    case 3: return store_job_progress(s, "ftjob-1", 1, &(struct job_progress){.step = 5, .events = &e, .n_events = 1, .checkpoints = &c, .n_checkpoints = 1, .models = &m, .n_models = 1}, &err);
    case 4: return store_job_finish(s, "ftjob-1", 1, &(struct job_outcome){.status = JOB_SUCCEEDED, .model = &done, .files = &f, .n_files = 1}, &err);
    case 5: return store_alias_put(s, &(struct stored_alias){"best", "ft:done", "alice", false, 1}, &err);
    default: return store_file_remove(s, &alice, "file-old", &arena, &models, &err);
    }
}

// 1: whole, 0: nothing of it, -1: a part.
static int step_there(struct store *s, int step) {
    struct stored_job j = {.status = JOB_STATUSES};
    struct stored_event *events;
    struct stored_checkpoint *checkpoints;
    struct stored_model *models;
    struct stored_alias *aliases;
    size_t n_events = 0, n_checkpoints = 0, n_models = 0, n_aliases = 0;
    bool more;
    struct page all = {NULL, 100, true};
    bool job = store_job_get(s, &admin, "ftjob-1", &arena, &j, NULL);
    if (job) OK(store_event_list(s, &admin, "ftjob-1", &all, &arena, &events, &n_events, &more, &err));
    if (job) OK(store_checkpoint_list(s, &admin, "ftjob-1", &all, &arena, &checkpoints, &n_checkpoints, &more, &err));
    OK(store_model_list(s, &arena, &models, &n_models, &err));
    bool step_model = n_models > 0 && strcmp(models[0].id, "ft:step") == 0, done_model = n_models > 0 && strcmp(models[n_models - 1].id, "ft:done") == 0;
    int parts, whole;
    switch (step) {
    case 0: parts = store_file_known(s, "file-new"), whole = 1; break;
    case 1: parts = job + (n_events > 0), whole = 2; break;
    case 2: parts = job && j.attempt == 1 && (j.status == JOB_RUNNING || j.status == JOB_SUCCEEDED), whole = 1; break;
    case 3: parts = (j.step == 5) + (n_events > 1) + (n_checkpoints == 1) + step_model, whole = 4; break;
    case 4: parts = (j.status == JOB_SUCCEEDED) + done_model + store_file_known(s, "file-result") + (job && j.fine_tuned_model), whole = 4; break;
    case 5: OK(store_alias_list(s, &arena, &aliases, &n_aliases, &err)); parts = (int)n_aliases, whole = 1; break;
    default: parts = !store_file_known(s, "file-old"), whole = 1;
    }
    return parts == whole ? 1 : parts ? -1 : 0;
}

static bool whole(struct store *s) {
    sqlite3_stmt *q;
    bool ok = sqlite3_prepare_v2(s->db, "PRAGMA integrity_check", -1, &q, NULL) == SQLITE_OK && sqlite3_step(q) == SQLITE_ROW &&
              strcmp((const char *)sqlite3_column_text(q, 0), "ok") == 0;
    sqlite3_finalize(q);
    return ok;
}

static void check_folder(const char *folder) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && strcmp(e->d_name, "couplet.db") != 0 && strcmp(e->d_name, "couplet.db.v1.bak") != 0) TEST_FAIL("%s was left", e->d_name);
    if (d) closedir(d);
}

static enum err_code wanted; // of what fails

static bool code_clear(enum err_code or) { return (err.code == wanted || err.code == or) && strlen(err.message) > 10; }

static char *folder;

static void begin(void) {
    if (dir_exists("/dev/shm")) setenv("TMPDIR", "/dev/shm", 0); // fsync costs nothing there
    folder = folder_make();
    struct store *s = store_open_version(folder, 1, &err); // an old one, so that copying and migrating are met too
    OK(file_add(s, "file-kept", "alice", false));
    OK(file_add(s, "file-old", "alice", false));
    store_close(s);
}

// done: which steps the store said it had done.
static struct store *live(bool done[STEPS]) {
    err = (struct err){0};
    struct store *s = store_open(folder, &err);
    // Where a file cannot be made SQLite tries once more without making it, and that is the errno which is left.
    if (!s && !code_clear(ERR_IO)) TEST_FAIL("opening: code %d, \"%s\"", (int)err.code, err.message);
    for (int i = 0; s && i < STEPS; i++) {
        err = (struct err){0};
        if (i >= 2 && i <= 4 && !done[i - 1]) continue; // a job's life goes in order
        done[i] = step_do(s, i);
        if (!done[i] && !code_clear(wanted)) TEST_FAIL("%s: code %d, \"%s\"", step_names[i], (int)err.code, err.message);
    }
    return s;
}

// Everything works now. s: NULL to open it again; a commit that was not acknowledged may stand then, when its bytes had reached the disk.
static void end(struct store *s, const bool done[STEPS]) {
    bool opened = !s;
    if (!s) s = store_open(folder, &err);
    if (!s) TEST_FAIL("opening afterwards: %s", err.message), exit(1);
    for (int i = 0; i < STEPS; i++) {
        int there = step_there(s, i);
        if (there < 0 || (done[i] && !there) || (!done[i] && there && !opened)) TEST_FAIL("%s said %d and %d is there", step_names[i], done[i], there);
        if (!there) OK(step_do(s, i));
    }
    CHECK(whole(s));
    store_close(s);
    s = store_open(folder, &err);
    if (!s) TEST_FAIL("opening at the end: %s", err.message), exit(1);
    for (int i = 0; i < STEPS; i++) CHECK_INT(step_there(s, i), 1);
    CHECK(store_file_known(s, "file-kept") && whole(s));
    store_close(s);
    check_folder(folder);
    folder_remove(folder);
}

// One life with one fault. false: no call was left to fail.
static bool live_with(const char *spec, bool closed_while_broken) {
    int failures = test_failures;
    bool done[STEPS] = {false};
    begin();
    if (!fail_io_set(spec)) TEST_FAIL("%s", spec), exit(1);
    wanted = strstr(spec, "ENOSPC") ? ERR_NO_SPACE : ERR_IO;
    struct store *s = live(done);
    if (closed_while_broken) store_close(s), s = NULL;
    bool hit = fail_io_hit();
    fail_io_set(NULL);
    end(s, done);
    if (test_failures > failures) fprintf(stderr, "  (with %s%s)\n", spec, closed_while_broken ? ", closed while broken" : "");
    return hit;
}

static void every_call(const char *plus, bool closed_while_broken) {
    static const char *const ops[] = {"pwrite", "write", "fsync", "fdatasync", "ftruncate", "rename", "create"}, *const numbers[] = {"ENOSPC", "EIO"};
    int lives = 0;
    for (size_t o = 0; o < ARRAY_LEN(ops); o++)
        for (size_t e = 0; e < ARRAY_LEN(numbers); e++) {
            char spec[64];
            int n = 0;
            do snprintf(spec, sizeof spec, "%s:%d%s:%s", ops[o], ++n, plus, numbers[e]);
            while (live_with(spec, closed_while_broken) && test_failures < 20);
            if (e == 0 && n > 1) printf("  %s: %d calls\n", ops[o], n - 1);
            lives += n;
        }
    printf("%d lives\n", lives);
    CHECK(lives > 50);
}

TEST(one_call_fails) { every_call("", false); }
TEST(all_calls_fail_from_one_on) { every_call("+", false); }
TEST(broken_for_good) { every_call("+", true); }

TEST(each_failure_has_its_own_reason) {
    // SQLite remembers an older errno when a COMMIT fails.
    static const struct {
        const char *spec;
        enum err_code code;
    } faults[] = {{"pwrite:1:EIO", ERR_IO}, {"fdatasync:1:ENOSPC", ERR_NO_SPACE}, {"fdatasync:1:EIO", ERR_IO}, {"pwrite:1:ENOSPC", ERR_NO_SPACE}, {"pwrite:2:EIO", ERR_IO}};
    begin();
    struct store *s = store_open(folder, &err);
    REQUIRE(s);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        CHECK(fail_io_set(faults[i].spec));
        FAILS(file_add(s, "file-new", "alice", false), faults[i].code);
        CHECK(fail_io_hit());
    }
    fail_io_set(NULL);
    OK(file_add(s, "file-new", "alice", false));
    store_close(s);
    folder_remove(folder);
}

TEST(killed_before_every_call) {
#ifdef __SANITIZE_THREAD__
    return; // no fork there
#endif
    bool *done = mmap(NULL, STEPS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(done != MAP_FAILED);
    int n = 0, status = 0;
    do {
        int failures = test_failures;
        char spec[32];
        snprintf(spec, sizeof spec, "any:%d:KILL", ++n);
        memset(done, 0, STEPS);
        begin();
        pid_t pid = fork();
        if (pid == 0) {
            fail_io_set(spec);
            store_close(live(done));
            _exit(0);
        }
        waitpid(pid, &status, 0);
        end(NULL, done);
        if (test_failures > failures) fprintf(stderr, "  (with %s)\n", spec);
    } while (!WIFEXITED(status) && test_failures < 20);
    printf("killed at %d calls\n", n - 1);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0 && n > 50);
    munmap(done, STEPS);
}

TEST_MAIN("store_faults")
