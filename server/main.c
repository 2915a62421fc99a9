// SPDX-License-Identifier: MIT
// The program: a table of sub-commands, --version, --help.
#include "base/mem.h"
#include "engine/kernels/kernels.h"
#include "server/commands.h"
#include "server/jobs/supervised.h"

#include <cblas.h>
#include <jansson.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <uv.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} commands[] = {
    {"serve", cmd_serve, "serve models over HTTP"},
    {"keys", cmd_keys, "add, list and revoke API keys"},
    {"files", cmd_files, "files of a running server: upload, list, look at, delete"},
    {"jobs", cmd_jobs, "fine-tuning jobs of a running server: submit, watch, export"},
    {"tokenize", cmd_tokenize, "turn text into token ids, or ids into text"},
    {"tokenizer", cmd_tokenizer, "train a tokenizer on text files"},
    {"generate", cmd_generate, "continue a prompt"},
    {"train", cmd_train, "train a model, whole or by LoRA"},
    {"eval", cmd_eval, "measure a model on a file: loss, and its answers beside the references"},
    {"inspect", cmd_inspect, "look at a model's weights, tokenizer or attention"},
    {"convert", cmd_convert, "write a model in another format or precision"},
    {"pull", cmd_pull, "fetch a model from a Hugging Face hub"},
    {"bench", cmd_bench, "measure prefill and decode"},
};

static void print_help(FILE *out) {
    fputs("couplet serves and fine-tunes GPT-2 class language models.\n\nusage: couplet COMMAND [OPTIONS]\n\n", out);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) fprintf(out, "  %-10s  %s\n", commands[i].name, commands[i].summary);
    fputs("\n  --version   versions of the program and its libraries, and the instruction set in use\n"
          "  --help      this text; 'couplet COMMAND --help' for a command's options\n", out);
}

static int print_version(void) {
    struct err err = {0};
    const struct kernels *kernels = kernels_get(&err);
    printf("couplet %s\nisa %s\nlibmicrohttpd %s\nlibuv %s\njansson %s\nopenblas %s\n", COUPLET_VERSION, kernels ? kernels->name : err.message,
           MHD_get_version(), uv_version_string(), JANSSON_VERSION, openblas_get_corename());
    return 0;
}

int main(int argc, char **argv) {
    struct err err = {0};
    if (!supervised_enter(&err)) {
        fprintf(stderr, "couplet: %s\n", err.message);
        return 1;
    }
    const char *name = argc > 1 ? argv[1] : "--help";
    for (size_t i = 0; i < ARRAY_LEN(commands); i++)
        if (strcmp(name, commands[i].name) == 0) return commands[i].run(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0) return print_version();
    bool help = strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0;
    if (!help) fprintf(stderr, "couplet: there is no command '%s'\n\n", name);
    print_help(help && argc > 1 ? stdout : stderr);
    return help && argc > 1 ? 0 : 2;
}
