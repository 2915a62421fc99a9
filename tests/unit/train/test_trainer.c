// SPDX-License-Identifier: MIT
// The training loop on tiny models: a killed, stopped or damaged run resumes to the bits of the uninterrupted one, whatever the thread count;
// learning, counting, early stopping, numbers that are not finite. Every run is a child process, as in life; what it leaves in its directory
// (log and checkpoints) is compared byte by byte. COUPLET_TEST_KILLS=all kills at every event instead of some.
#include "tests/unit/test.h"

#include "base/file.h"
#include "base/mem.h"
#include "engine/train/checkpoint.h"
#include "engine/train/gemm.h"
#include "engine/train/trainer.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { KILLED = 9, FAILED = 1, N_VOCAB = 257 };

static struct tokenizer *byte_tokenizer(void) {
    static char bytes[256];
    struct vocab_entry vocab[N_VOCAB] = {0};
    for (size_t i = 0; i < 256; i++) bytes[i] = (char)i, vocab[i] = (struct vocab_entry){.bytes = &bytes[i], .len = 1};
    vocab[256] = (struct vocab_entry){.bytes = "<|endoftext|>", .len = 13, .special = true};
    return tokenizer_create(&(struct tokenizer_spec){.vocab = vocab, .n_vocab = N_VOCAB, .pre = PRE_GPT2, .bos = 256, .eos = 256, .pad = 256}, NULL);
}

// ---- one run ----

struct scenario { // what differs between the runs of these tests
    struct train_config config;
    struct optimizer_config optimizer;
    struct lora_options lora;
    enum train_method method;
    size_t threads, rows;      // of training data
    size_t kill_at;            // the process dies at this event, from 1; 0: never
    size_t stop_at;            // the stop flag goes up at this event
    size_t poison_at;          // a weight becomes NaN at this event
    bool same_rows, no_validation, kill_torn; // kill_torn: with half a line in the log
};
struct run {
    const struct scenario *s;
    struct params *p;
    FILE *log;
    size_t n_events;
    volatile bool stop;
};

static void event_write(FILE *f, const struct train_event *e) {
    static const char *const names[] = {"start", "step", "eval", "sample", "checkpoint", "warning", "done"};
    fprintf(f, "%s step %llu/%llu epoch %.9g tokens %llu supervised %llu", names[e->kind], (unsigned long long)e->step,
            (unsigned long long)e->total_steps, e->epoch, (unsigned long long)e->tokens, (unsigned long long)e->supervised);
    if (e->kind == TRAIN_STEP) fprintf(f, " loss %.17g accuracy %.17g lr %.17g norm %.17g", e->train_loss, e->train_accuracy, e->learning_rate, e->grad_norm);
    if (e->kind == TRAIN_EVAL)
        fprintf(f, " loss %.17g perplexity %.9g accuracy %.9g bits %.9g train %.17g best %d n %zu", e->valid_loss, e->perplexity, e->token_accuracy,
                e->bits_per_byte, e->eval_train_loss, e->best, e->n_valid_targets);
    if (e->kind == TRAIN_SAMPLE) {
        fprintf(f, " %s:", e->prompt);
        for (const char *c = e->text; *c; c++) fprintf(f, " %02x", (unsigned char)*c);
    }
    if (e->kind == TRAIN_CHECKPOINT) fprintf(f, " %s", strrchr(e->path, '/'));
    if (e->kind == TRAIN_WARNING) fprintf(f, " %s", e->message);
    if (e->kind == TRAIN_DONE) fprintf(f, " end %d train %.17g valid %.17g", e->end, e->train_loss, e->valid_loss);
    fputc('\n', f);
}

static void run_emit(void *ctx, const struct train_event *e) {
    struct run *r = ctx;
    r->n_events++;
    if (r->n_events == r->s->kill_at) {
        if (r->s->kill_torn) fputs("step 99 half a li", r->log);
        fflush(r->log);
        kill(getpid(), SIGKILL);
    }
    event_write(r->log, e);
    if (r->n_events == r->s->stop_at) r->stop = true;
    if (r->n_events == r->s->poison_at) r->p->trained[5] = NAN;
}

static bool run_position(void *ctx, uint64_t *bytes, struct err *err) {
    struct run *r = ctx;
    fflush(r->log);
    *bytes = (uint64_t)ftell(r->log);
    return true;
}

static bool run_rewind(void *ctx, uint64_t position, struct err *err) {
    struct run *r = ctx;
    fflush(r->log);
    if (ftruncate(fileno(r->log), (off_t)position) < 0) return err_set(err, ERR_IO, "cannot cut the log");
    fseek(r->log, 0, SEEK_END);
    return true;
}

static void rows_write(const char *path, size_t n, bool same) {
    FILE *f = fopen(path, "w");
    uint64_t state = 5;
    for (size_t i = 0; f && i < n; i++) {
        fprintf(f, "{\"prompt\":\"%c%zu \",\"completion\":\"", 'a' + (int)(i % 26), same ? 0 : i);
        for (size_t k = 0, len = same ? 9 : 3 + i * 7 % 14; k < len; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            fputc(same ? 'a' + (int)k : 'a' + (int)(state >> 60), f);
        }
        fputs("\"}\n", f);
    }
    if (f) fclose(f);
}

static bool run_train(struct run *r, const char *dir, const struct tokenizer *tokenizer, struct train_config *c, struct train_result *result,
                      struct err *err) {
    const struct model_config model = {.arch = ARCH_GPT2, .n_layer = 2, .n_head = 2, .n_kv_head = 2, .head_size = 8, .n_embd = 16, .n_inner = 64,
                                       .n_vocab = N_VOCAB, .n_ctx = 24, .norm_eps = 1e-5f, .attn_bias = true, .qkv_bias = true, .mlp_bias = true,
                                       .tied_head = true};
    const struct dataset_options o = {.tokenizer = tokenizer, .n_vocab = N_VOCAB, .context = 24};
    const struct params_options po = {.method = r->s->method, .lora = r->s->lora, .seed = 3};
    const struct train_hooks hooks = {run_emit, run_position, run_rewind, r};
    char *data = path_join(dir, "rows.jsonl"), *checkpoints = path_join(dir, "checkpoints");
    struct data_view train = {0}, validation = {0};
    rows_write(data, r->s->rows, r->s->same_rows);
    gemm_start();
    struct pool *pool = pool_create(r->s->threads, err);
    struct dataset *d = dataset_open(data, &o, NULL, err);
    r->p = params_random(&model, INIT_GPT2, 1, &po, pool, err);
    bool ok = pool && d && r->p;
    if (ok && r->s->no_validation) data_view_all(&train, d);
    else ok = ok && data_view_split(d, 0.2, 7, &train, &validation, err);
    c->checkpoint_dir = checkpoints;
    c->stop = &r->stop;
    ok = ok && trainer_run(r->p, c, &train, &validation, tokenizer, &hooks, pool, result, err);
    data_view_finish(&train);
    data_view_finish(&validation);
    params_destroy(r->p);
    dataset_close(d);
    pool_destroy(pool);
    free(data);
    free(checkpoints);
    return ok;
}

struct outcome {
    int status; // exit status, KILLED for a signal
    struct train_result result;
    struct err err;
};

static void child_main(const char *dir, const struct scenario *s) {
    struct outcome out = {.status = FAILED};
    struct train_config c = s->config;
    struct run r = {.s = s};
    char *log = path_join(dir, "log"), *result = path_join(dir, "result");
    struct tokenizer *tokenizer = byte_tokenizer();
    static const char *const prompts[] = {"a1 ", "no prompt of the rows", "z"};
    c.optimizer = s->optimizer;
    c.prompts = prompts;
    c.n_prompts = ARRAY_LEN(prompts);
    c.sample_tokens = 3;
    r.log = fopen(log, c.resume ? "a" : "w");
    if (r.log && tokenizer && run_train(&r, dir, tokenizer, &c, &out.result, &out.err)) out.status = 0;
    if (r.log) fclose(r.log);
    if (!file_write_atomic(result, &out, sizeof(out), 0644, NULL)) out.status = FAILED;
    _exit(out.status);
}

static struct outcome run_child(const char *dir, const struct scenario *s) {
    struct outcome out = {.status = FAILED};
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) child_main(dir, s);
    int status = 0;
    waitpid(pid, &status, 0);
    char *path = path_join(dir, "result"), *text = file_read(path, sizeof(out), NULL, NULL);
    if (text && WIFEXITED(status)) memcpy(&out, text, sizeof(out));
    if (WIFSIGNALED(status)) out.status = WTERMSIG(status);
    free(text);
    free(path);
    return out;
}

static char *run_dir(void) {
    char name[] = "/tmp/test_trainer.XXXXXX";
    return mem_strdup(mkdtemp(name) ? name : ".");
}

static void run_dir_remove(char *dir) {
    CHECK(dir_remove(dir, NULL));
    free(dir);
}

static bool same_file(const char *a, const char *b, const char *name) {
    char *path_a = path_join(a, name), *path_b = path_join(b, name);
    size_t len_a = 0, len_b = 0;
    char *x = file_read(path_a, 1 << 26, &len_a, NULL), *y = file_read(path_b, 1 << 26, &len_b, NULL);
    const bool same = x && y && len_a == len_b && memcmp(x, y, len_a) == 0;
    free(x), free(y), free(path_a), free(path_b);
    return same;
}

static size_t count_entries(const char *dir) {
    size_t n = 0;
    DIR *d = opendir(dir);
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

// The log and every checkpoint that `wanted` has: equal bytes, and no checkpoint more.
static void compare_runs(const char *wanted, const char *got, const char *what, size_t k) {
    char *a = path_join(wanted, "checkpoints"), *b = path_join(got, "checkpoints");
    size_t n = 0;
    if (!same_file(wanted, got, "log")) TEST_FAIL("%s %zu: logs differ (%s/log, %s/log)", what, k, wanted, got);
    DIR *d = opendir(a);
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, "step-", 5) != 0) continue;
        static const char *const files[] = {"weights.safetensors", "optimizer.safetensors", "state.json"};
        n++;
        for (size_t i = 0; i < ARRAY_LEN(files); i++) {
            char *name = path_join(e->d_name, files[i]);
            if (!same_file(a, b, name)) TEST_FAIL("%s %zu: %s differs", what, k, name);
            free(name);
        }
    }
    if (d) closedir(d);
    CHECK(n > 0);
    CHECK_INT(count_entries(b), count_entries(a));
    free(a);
    free(b);
}

static size_t log_count(const char *dir, const char *kind) {
    char *path = path_join(dir, "log"), *text = file_read(path, 1 << 24, NULL, NULL);
    size_t n = 0;
    for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        n += strncmp(line, kind, strlen(kind)) == 0 && line[strlen(kind)] == ' ';
    free(text);
    free(path);
    return n;
}

// The value behind `field` in line `k` (from 0) of that kind; NaN: not there.
static double log_value(const char *dir, const char *kind, size_t k, const char *field) {
    char *path = path_join(dir, "log"), *text = file_read(path, 1 << 24, NULL, NULL);
    double value = NAN;
    size_t n = 0;
    for (char *save, *line = text ? strtok_r(text, "\n", &save) : NULL; line; line = strtok_r(NULL, "\n", &save)) {
        if (strncmp(line, kind, strlen(kind)) != 0 || n++ != k) continue;
        const char *at = strstr(line, field);
        if (at) value = strtod(at + strlen(field), NULL);
    }
    free(text);
    free(path);
    return value;
}

// Everything at once: dropout, shuffling, packing, accumulation, a schedule, clipping, decay, evaluation and checkpoints off the same beat.
static struct scenario full_scenario(void) {
    return (struct scenario){
        .config = {.epochs = 3, .batching = {.batch_size = 2, .accumulate = 2, .context = 24, .shuffle = true, .packing = true, .seed = 11},
                   .schedule = SCHEDULE_COSINE, .lr = 5e-3, .min_lr = 1e-4, .warmup = 3, .dropout = 0.1f, .dropout_lora = 0.1f, .seed = 42,
                   .eval_every = 3, .checkpoint_every = 2, .keep = 2, .early_stopping = 50, .run_hash = {7}},
        .optimizer = {.kind = OPTIMIZER_ADAMW, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f, .weight_decay = 0.1f, .clip = 1.0f},
        .threads = 1,
        .rows = 27,
    };
}

static size_t event_count(const char *dir) {
    size_t n = 0;
    static const char *const kinds[] = {"start", "step", "eval", "sample", "checkpoint", "warning", "done"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) n += log_count(dir, kinds[i]);
    return n;
}

// ---- bit-equal resume ----

static void resume_after_kills(const struct scenario *base, const char *what) {
    char *reference = run_dir();
    CHECK_INT(run_child(reference, base).status, 0);
    const char *kills = getenv("COUPLET_TEST_KILLS");
    const size_t n = event_count(reference), stride = kills && strcmp(kills, "all") == 0 ? 1 : MAX(n / 7, 1);
    CHECK(n > 20);
    for (size_t k = 1; k <= n; k += stride) {
        char *dir = run_dir();
        struct scenario s = *base;
        s.kill_at = k;
        s.kill_torn = k % 2 == 0;
        CHECK_INT(run_child(dir, &s).status, KILLED);
        s.config.resume = true;
        s.threads = 1 + k % 2; // the thread count may change at will
        s.kill_at = 5 + k % 3; // and once more, soon after
        const int status = run_child(dir, &s).status;
        CHECK(status == KILLED || (status == 0 && k + 8 > n));
        s.kill_at = 0;
        CHECK_INT(run_child(dir, &s).status, 0);
        compare_runs(reference, dir, what, k);
        run_dir_remove(dir);
    }
    run_dir_remove(reference);
}

TEST(killed_runs_resume_to_the_same_bits) {
    const struct scenario s = full_scenario();
    resume_after_kills(&s, "full, killed at event");
}

TEST(killed_lora_runs_resume_to_the_same_bits) {
    static const char *const targets[] = {"c_attn", "c_fc"};
    struct scenario s = full_scenario();
    s.method = TRAIN_LORA;
    s.lora = (struct lora_options){.rank = 2, .alpha = 4, .targets = targets, .n_targets = 2};
    s.config.checkpoint_every = 0;
    resume_after_kills(&s, "lora, killed at event");
}

TEST(thread_count_changes_nothing) {
    struct scenario s = full_scenario();
    char *one = run_dir(), *two = run_dir();
    CHECK_INT(run_child(one, &s).status, 0);
    s.threads = 2;
    CHECK_INT(run_child(two, &s).status, 0);
    compare_runs(one, two, "threads", 2);
    run_dir_remove(one);
    run_dir_remove(two);
}

// The signal: a checkpoint where it came, an honest end; the resumed run's log and checkpoints know nothing of it.
TEST(stopped_runs_resume_to_the_same_bits) {
    const struct scenario base = full_scenario();
    char *reference = run_dir();
    CHECK_INT(run_child(reference, &base).status, 0);
    const size_t n = event_count(reference);
    for (size_t k = 1; k < n; k += 5) {
        char *dir = run_dir();
        struct scenario s = base;
        s.stop_at = k;
        struct outcome out = run_child(dir, &s);
        CHECK_INT(out.status, 0);
        CHECK(out.result.end == TRAIN_END_STOPPED || out.result.steps == log_value(reference, "done", 0, "step ")); // it came too late
        CHECK_INT(log_count(dir, "done"), 1);
        CHECK(out.result.steps == 0 || log_count(dir, "checkpoint") > 0);
        s.config.resume = true;
        s.stop_at = 3; // again
        out = run_child(dir, &s);
        CHECK_INT(out.status, 0);
        s.stop_at = 0;
        out = run_child(dir, &s);
        CHECK_INT(out.result.end, TRAIN_END_FINISHED);
        compare_runs(reference, dir, "stopped at event", k);
        run_dir_remove(dir);
    }
    run_dir_remove(reference);
}

TEST(damaged_newest_checkpoint_falls_back) {
    struct scenario s = full_scenario();
    char *reference = run_dir(), *dir = run_dir();
    CHECK_INT(run_child(reference, &s).status, 0);
    s.kill_at = event_count(reference) - 3;
    CHECK_INT(run_child(dir, &s).status, KILLED);
    struct checkpoint_state newest = {0};
    for (uint64_t step = 0; step < 100; step++) {
        char *checkpoints = path_join(dir, "checkpoints"), *path = checkpoint_path(checkpoints, step);
        if (dir_exists(path)) newest.step = step;
        free(path), free(checkpoints);
    }
    char name[200];
    snprintf(name, sizeof(name), "%s/checkpoints/step-%08llu/weights.safetensors", dir, (unsigned long long)newest.step);
    FILE *f = fopen(name, "r+b");
    REQUIRE(f);
    fseek(f, 9999, SEEK_SET);
    fputc(77, f);
    fclose(f);
    s.kill_at = 0;
    s.config.resume = true;
    CHECK_INT(run_child(dir, &s).status, 0);
    compare_runs(reference, dir, "damaged", 0);
    run_dir_remove(reference);
    run_dir_remove(dir);
}

TEST(resume_of_nothing_begins_and_of_another_run_is_refused) {
    struct scenario s = full_scenario();
    char *reference = run_dir(), *dir = run_dir();
    CHECK_INT(run_child(reference, &s).status, 0);
    s.config.resume = true;
    CHECK_INT(run_child(dir, &s).status, 0);
    compare_runs(reference, dir, "resume of nothing", 0);
    CHECK_INT(run_child(dir, &s).status, 0); // of a finished run: nothing is left to do
    compare_runs(reference, dir, "resume of the end", 0);
    s.config.run_hash[0]++;
    struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, FAILED);
    CHECK_INT(out.err.code, ERR_INVALID);
    CHECK_STR(out.err.param, "resume");
    compare_runs(reference, dir, "refused", 0);
    run_dir_remove(reference);
    run_dir_remove(dir);
}

// ---- what a run does ----

static struct scenario plain_scenario(void) {
    return (struct scenario){
        .config = {.epochs = 2, .batching = {.batch_size = 3, .accumulate = 1, .context = 24}, .lr = 1e-2, .keep = 3},
        .optimizer = {.kind = OPTIMIZER_ADAMW, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-8f},
        .threads = 1,
        .rows = 7,
        .no_validation = true,
    };
}

TEST(updates_are_counted) {
    struct scenario s = plain_scenario();
    char *dir = run_dir();
    struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, 0);
    CHECK_INT(out.result.steps, 6); // 3 + 3 + 1 rows, twice
    CHECK(isnan(out.result.best_valid_loss));
    CHECK_INT(log_count(dir, "step"), 6);
    CHECK_INT(log_count(dir, "eval"), 0);
    CHECK_INT(log_count(dir, "sample"), 9); // at the beginning and at the end of either epoch
    CHECK_INT(log_count(dir, "checkpoint"), 2);
    CHECK_NEAR(log_value(dir, "step", 0, "epoch "), 1.0 / 3, 1e-8);
    CHECK_NEAR(log_value(dir, "step", 2, "epoch "), 1, 0);
    CHECK_NEAR(log_value(dir, "step", 5, "epoch "), 2, 0);
    const double tokens = log_value(dir, "step", 2, "tokens ");
    CHECK_NEAR(log_value(dir, "step", 5, "tokens "), 2 * tokens, 0);
    run_dir_remove(dir);
    dir = run_dir();
    s.config.steps = 8; // goes round the data
    out = run_child(dir, &s);
    CHECK_INT(out.result.steps, 8);
    CHECK_NEAR(log_value(dir, "step", 7, "epoch "), 2 + 2.0 / 3, 1e-8);
    CHECK_INT(log_count(dir, "checkpoint"), 3);
    run_dir_remove(dir);
}

TEST(tiny_model_learns_by_heart) {
    struct scenario s = plain_scenario();
    s.same_rows = true;
    s.config.steps = 150;
    s.config.eval_every = 50;
    s.no_validation = false;
    char *dir = run_dir();
    const struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, 0);
    CHECK_NEAR(out.result.first_valid_loss, log(N_VOCAB), 0.1);
    CHECK(out.result.last_valid_loss < 0.5);
    CHECK(log_value(dir, "step", 149, "loss ") < log_value(dir, "step", 0, "loss ") / 5);
    CHECK_INT(out.result.best_step, 150);
    CHECK_NEAR(log_value(dir, "eval", 3, "perplexity "), exp(out.result.last_valid_loss), 1e-6);
    CHECK_NEAR(log_value(dir, "eval", 3, "accuracy "), 1, 0.21);
    // One byte a token but the end's 13: bits per byte are the loss in bits times tokens over bytes.
    CHECK_NEAR(log_value(dir, "eval", 3, "bits "), out.result.last_valid_loss / log(2) * 10 / (9 + 13), 1e-6);
    run_dir_remove(dir);
}

TEST(accumulation_is_the_whole_batch) {
    struct scenario s = plain_scenario();
    char *whole = run_dir(), *parts = run_dir();
    s.config.dropout = 0.2f;
    s.config.batching.batch_size = 6;
    CHECK_INT(run_child(whole, &s).status, 0);
    s.config.batching.batch_size = 1;
    s.config.batching.accumulate = 6;
    CHECK_INT(run_child(parts, &s).status, 0);
    CHECK_INT(log_count(parts, "step"), 4);
    for (size_t i = 0; i < 4; i++) CHECK_NEAR(log_value(parts, "step", i, "loss "), log_value(whole, "step", i, "loss "), 1e-6);
    run_dir_remove(whole);
    run_dir_remove(parts);
}

TEST(early_stopping_stops) {
    struct scenario s = full_scenario(); // noise: what is learned by heart costs on the validation rows
    s.config.steps = 500;
    s.config.lr = s.config.min_lr = 2e-2;
    s.config.dropout = 0;
    s.config.early_stopping = 3;
    s.config.keep = 1;
    s.config.checkpoint_every = 100;
    char *dir = run_dir(), *checkpoints = path_join(dir, "checkpoints");
    const struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, 0);
    CHECK_INT(out.result.end, TRAIN_END_EARLY);
    CHECK(out.result.steps < 500 && out.result.best_step > 0);
    CHECK_INT(out.result.steps, out.result.best_step + 9);
    char *best = checkpoint_path(checkpoints, out.result.best_step);
    CHECK(dir_exists(best)); // kept for who wants the best weights
    s.config.resume = true;
    CHECK_INT(run_child(dir, &s).result.end, TRAIN_END_EARLY);
    CHECK_INT(log_count(dir, "done"), 1);
    free(best);
    free(checkpoints);
    run_dir_remove(dir);
}

// ---- numbers that are not finite ----

TEST(three_bad_updates_in_a_row_end_the_run) {
    struct scenario s = plain_scenario();
    s.config.lr = 1e30;
    char *dir = run_dir();
    const struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, FAILED);
    CHECK_INT(out.err.code, ERR_CORRUPT);
    CHECK_STR(out.err.param, "non_finite_loss");
    CHECK_INT(log_count(dir, "warning"), 3);
    CHECK_INT(log_count(dir, "done"), 0);
    run_dir_remove(dir);
}

TEST(broken_weights_roll_back) {
    struct scenario s = plain_scenario();
    s.config.checkpoint_every = 2;
    s.poison_at = 8; // start, three samples, updates 1 and 2, checkpoint 2, update 3
    char *dir = run_dir();
    struct outcome out = run_child(dir, &s);
    CHECK_INT(out.status, 0);
    CHECK_INT(out.result.steps, 6);
    CHECK_INT(log_count(dir, "warning"), 2); // update 4 is skipped, weights of update 2
    CHECK_INT(log_count(dir, "step"), 5);
    CHECK(isfinite(out.result.last_train_loss));
    run_dir_remove(dir);
    dir = run_dir();
    s.poison_at = 1; // no checkpoint to go back to
    out = run_child(dir, &s);
    CHECK_INT(out.status, FAILED);
    CHECK_STR(out.err.param, "non_finite_loss");
    run_dir_remove(dir);
}

TEST_MAIN("trainer")
