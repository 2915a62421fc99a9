// SPDX-License-Identifier: MIT
// The sub-commands: one function each, cmd_NAME.c. argv[0] is the sub-command's name; the result is the exit status.
#pragma once

int cmd_serve(int argc, char **argv);
int cmd_keys(int argc, char **argv);
int cmd_files(int argc, char **argv);
int cmd_jobs(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_tokenizer(int argc, char **argv);
int cmd_generate(int argc, char **argv);
int cmd_train(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);
