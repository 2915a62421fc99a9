// SPDX-License-Identifier: MIT
// The option parser: one pass over argv against a command's table. Main thread, before anything else runs.
#include "server/options.h"

#include "base/mem.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void option_list_finish(struct option_list *l) {
    free((void *)l->items);
    *l = (struct option_list){0};
}

static void option_list_add(struct option_list *l, const char *item) {
    mem_grow(&l->items, &l->cap, l->n + 1);
    l->items[l->n++] = item;
}

void option_args_finish(struct option_args *a) { option_list_finish(&a->positional); }

bool option_read_uint64(const char *text, uint64_t *out) {
    if (!isdigit((unsigned char)text[0])) return false; // strtoull takes spaces and signs
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end) return false;
    *out = v;
    return true;
}

bool option_read_double(const char *text, double *out) {
    if (!text[0] || isspace((unsigned char)text[0])) return false;
    char *end;
    double v = strtod(text, &end);
    if (*end || !isfinite(v)) return false;
    *out = v;
    return true;
}

// ---- one value ----

static bool choice_holds(const char *choices, const char *value) {
    size_t len = strlen(value);
    for (const char *at = choices;; at++) {
        size_t n = strcspn(at, "|");
        if (n == len && memcmp(at, value, n) == 0) return true;
        at += n;
        if (!*at) return false;
    }
}

static bool value_out_of_range(const struct option_spec *o, double v) {
    return (o->min != 0 || o->max != 0) && !(v >= o->min && v <= o->max);
}

static bool range_err(const struct option_spec *o, const char *text, struct err *err) {
    if (isinf(o->max))
        return err_set_param(err, ERR_INVALID, o->name, "%s must be at least %g, not %s", o->name, o->min, text);
    return err_set_param(err, ERR_INVALID, o->name, "%s must be between %.10g and %.10g, not %s", o->name, o->min, o->max,
                         text);
}

static bool integer_store(const struct option_spec *o, const char *text, void *target, struct err *err) {
    uint64_t v;
    if (!option_read_uint64(text, &v))
        return err_set_param(err, ERR_INVALID, o->name, "%s takes a whole number, not '%s'", o->name, text);
    if (value_out_of_range(o, (double)v) || (o->kind == OPTION_SIZE && v > SIZE_MAX)) return range_err(o, text, err);
    if (o->kind == OPTION_SIZE) *(size_t *)target = (size_t)v;
    else *(uint64_t *)target = v;
    return true;
}

static bool real_store(const struct option_spec *o, const char *text, void *target, struct err *err) {
    double v;
    if (!option_read_double(text, &v))
        return err_set_param(err, ERR_INVALID, o->name, "%s takes a number, not '%s'", o->name, text);
    bool too_large = o->kind == OPTION_FLOAT && !isfinite((float)v);
    if (value_out_of_range(o, v) || too_large) return range_err(o, text, err);
    if (o->kind == OPTION_FLOAT) *(float *)target = (float)v;
    else *(double *)target = v;
    return true;
}

static bool value_store(const struct option_spec *o, const char *text, void *targets, struct err *err) {
    void *target = (char *)targets + o->offset;
    switch (o->kind) {
    case OPTION_FLAG: *(bool *)target = true; return true;
    case OPTION_SIZE:
    case OPTION_UINT64: return integer_store(o, text, target, err);
    case OPTION_FLOAT:
    case OPTION_DOUBLE: return real_store(o, text, target, err);
    case OPTION_LIST: option_list_add(target, text); return true;
    case OPTION_STRING:
        if (o->choices && !choice_holds(o->choices, text))
            return err_set_param(err, ERR_INVALID, o->name, "%s must be one of %s, not '%s'", o->name, o->choices,
                                 text);
        *(const char **)target = text;
        return true;
    }
    return true;
}

// ---- the command line ----

// arg is "--name", "--name=value" or "-c". NULL: unknown. *value is what follows '=', or NULL.
static const struct option_spec *option_find(const struct option_command *c, const char *arg, const char **value) {
    size_t len = strcspn(arg, "=");
    *value = arg[1] == '-' && arg[len] == '=' ? arg + len + 1 : NULL;
    for (size_t i = 0; i < c->n_options; i++) {
        const struct option_spec *o = &c->options[i];
        if (strlen(o->name) == len && memcmp(o->name, arg, len) == 0) return o;
        if (o->letter && arg[1] == o->letter && !arg[2]) return o;
    }
    return NULL;
}

static bool required_present(const struct option_command *c, uint64_t seen, struct err *err) {
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].required && !(seen >> i & 1))
            return err_set_param(err, ERR_INVALID, c->options[i].name, "%s is required", c->options[i].name);
    return true;
}

bool options_parse(const struct option_command *c, int argc, char **argv, void *targets, struct option_args *args,
                   struct err *err) {
    assert(c->n_options <= 64);
    bool ended = false;
    for (int i = 1; i < argc; i++) {
        const char *arg = argv[i], *value;
        if (ended || arg[0] != '-' || !arg[1]) {
            if (args->positional.n == c->max_args) return err_set(err, ERR_INVALID, "unexpected argument '%s'", arg);
            option_list_add(&args->positional, arg);
            continue;
        }
        if (strcmp(arg, "--") == 0) {
            ended = true;
            continue;
        }
        if (strcmp(arg, "--help") == 0 || strcmp(arg, "-h") == 0) {
            args->help = true;
            return true;
        }
        const struct option_spec *o = option_find(c, arg, &value);
        if (!o) return err_set_param(err, ERR_INVALID, arg, "unknown option '%.*s'", (int)strcspn(arg, "="), arg);
        if (o->kind == OPTION_FLAG && value)
            return err_set_param(err, ERR_INVALID, o->name, "%s takes no value", o->name);
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc) return err_set_param(err, ERR_INVALID, o->name, "%s needs a value", o->name);
            value = argv[++i];
        }
        if (!value_store(o, value, targets, err)) return false;
        args->seen |= UINT64_C(1) << (o - c->options);
    }
    return required_present(c, args->seen, err);
}

// ---- words for people ----

// "  -c, --config FILE": returns the columns it takes, also without a file to print to.
static int option_label(const struct option_spec *o, FILE *out) {
    char text[96];
    int n = o->letter ? snprintf(text, sizeof text, "  -%c, %s", o->letter, o->name)
                      : snprintf(text, sizeof text, "  %s", o->name);
    if (o->kind != OPTION_FLAG) n += snprintf(text + n, sizeof text - (size_t)n, " %s", o->value ? o->value : "VALUE");
    if (out) fputs(text, out);
    return n;
}

void options_help(const struct option_command *c, FILE *out) {
    int width = 8;
    for (size_t i = 0; i < c->n_options; i++)
        if (c->options[i].help) width = MAX(width, option_label(&c->options[i], NULL));
    fprintf(out, "usage: couplet %s %s\n\n%s\n\n", c->name, c->synopsis, c->summary);
    for (size_t i = 0; i < c->n_options; i++) {
        const struct option_spec *o = &c->options[i];
        if (!o->help) continue;
        fprintf(out, "%*s  %s", width - option_label(o, out), "", o->help);
        if (o->choices) fprintf(out, " (%s)", o->choices);
        if (o->required) fputs(" (required)", out);
        if (o->kind == OPTION_LIST) fputs(" (repeatable)", out);
        fputc('\n', out);
    }
    fprintf(out, "  --help%*s  this text\n", width - 8, "");
}

bool options_start(const struct option_command *c, int argc, char **argv, void *targets, struct option_args *args,
                   int *status) {
    struct err err = {0};
    if (!options_parse(c, argc, argv, targets, args, &err)) {
        *status = options_fail(c, &err);
        if (!err.param[0]) *status = 2; // an argument too many has no option's name
        fprintf(stderr, "Try 'couplet %s --help'.\n", c->name);
        return false;
    }
    if (!args->help) return true;
    options_help(c, stdout);
    *status = 0;
    return false;
}

int options_fail(const struct option_command *c, const struct err *err) {
    fprintf(stderr, "couplet %s: %s\n", c->name, err->message);
    return err->code == ERR_INVALID && err->param[0] == '-' ? 2 : 1;
}
