// SPDX-License-Identifier: MIT
// Command-line options of the sub-commands: one table a command gives parsing, --help and the messages.
//
// `--name value`, `--name=value`, flags without a value; `--` ends the options; `-` is an argument. --help (-h) is
// built in. A value may begin with '-'. Later occurrences win, but for lists, which collect. Nothing here reads the
// locale.
//
//     struct generate_options o = {.max_tokens = 128};
//     struct option_args args = {0};
//     int status;
//     if (options_start(&command, argc, argv, &o, &args, &status)) status = generate(&o, &args.positional);
//     option_args_finish(&args); // and option_list_finish of every list in o
//     return status;
#pragma once

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

// Growable list of borrowed argument strings. `{0}` is empty.
struct option_list {
    const char **items;
    size_t n, cap;
};
void option_list_finish(struct option_list *l);

enum option_kind {      // target type
    OPTION_FLAG,        // bool
    OPTION_STRING,      // const char *, borrowed from argv
    OPTION_LIST,        // struct option_list, one item an occurrence
    OPTION_SIZE,        // size_t
    OPTION_UINT64,      // uint64_t
    OPTION_FLOAT,       // float
    OPTION_DOUBLE,      // double
};

struct option_spec {
    const char *name; // with its dashes: "--max-tokens"
    char letter;      // 'c' for -c; 0: none
    enum option_kind kind;
    size_t offset;      // of the target in the command's options struct
    const char *value;  // how --help names the value: "N", "PATH"; NULL for flags
    const char *help;   // one line, lower case, no full stop; NULL: not shown in --help
    bool required;
    const char *choices; // strings only: "auto|f32|q8"; NULL: any
    double min, max;     // numbers only, inclusive; both 0: unchecked
};

struct option_command {
    const char *name;     // "generate"
    const char *synopsis; // what follows the name in the usage line: "--model PATH [OPTIONS] [PROMPT|-]"
    const char *summary;  // one sentence
    const struct option_spec *options;
    size_t n_options; // at most 64
    size_t max_args;  // arguments that are not options
};

struct option_args {
    struct option_list positional;
    uint64_t seen; // bit i: options[i] was on the command line
    bool help;     // --help was: nothing after it was read or checked
};
void option_args_finish(struct option_args *a); // accepts a zeroed one

// argv[0] is the command's name. Targets not on the command line keep their value. On failure *err names the option and
// its `param`; targets may have been written. Pure: prints nothing.
bool options_parse(const struct option_command *c, int argc, char **argv, void *targets, struct option_args *args,
                   struct err *err) MUST_CHECK;
void options_help(const struct option_command *c, FILE *out);
// What a command does first: parses; prints help on stdout (*status = 0) or the mistake on stderr (*status = 2). False:
// return *status.
bool options_start(const struct option_command *c, int argc, char **argv, void *targets, struct option_args *args,
                   int *status) MUST_CHECK;
// "couplet NAME: message" on stderr. Returns 2 where the command line is at fault (ERR_INVALID with a param that is an
// option), else 1.
int options_fail(const struct option_command *c, const struct err *err);

// Whole-string number readers: no sign, no space, no trailing text, no overflow; floats finite.
bool option_read_uint64(const char *text, uint64_t *out) MUST_CHECK;
bool option_read_double(const char *text, double *out) MUST_CHECK;
