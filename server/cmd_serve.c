// SPDX-License-Identifier: MIT
// `couplet serve`: settings, then the server. Main thread.
#include "server/commands.h"
#include "server/config.h"
#include "server/server.h"

#include <stdio.h>

int cmd_serve(int argc, char **argv) {
    struct config config;
    enum config_action action;
    struct err err = {0};
    if (!config_load(&config, argc, argv, &action, &err)) {
        fprintf(stderr, "couplet serve: %s\nTry 'couplet serve --help'.\n", err.message);
        return err.code == ERR_INVALID ? 2 : 1;
    }
    int status = 0;
    switch (action) {
    case CONFIG_HELP: config_print_help(stdout); break;
    case CONFIG_PRINT: config_print(&config, stdout); break;
    case CONFIG_CHECK: puts("The configuration is right."); break;
    case CONFIG_SERVE: status = server_run(&config); break;
    }
    config_finish(&config);
    return status;
}
