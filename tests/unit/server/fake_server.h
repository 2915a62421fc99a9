// SPDX-License-Identifier: MIT
// The HTTP core's and the server's functions without sockets or threads: a request goes in as a body, and what the route answered
// is kept. For tests of the api_*.c files with fake_engine.c.
#pragma once

#include "fake_engine.h"
#include "server/http.h"
#include "server/server.h"

#include <jansson.h>

struct exchange {
    struct http_request r;
    int status;
    struct buf body;    // whole answer, or all stream bytes
    struct buf headers; // "name: value\n" each
    bool streaming, closed, replied, started, ended;
};

extern struct server fake_server;
extern bool fake_cold;      // the model is found cold until registry_warm
extern size_t fake_n_warmed; // calls of it

extern bool fake_lane_full;         // http_look_work takes nothing
extern bool fake_cancelled_request; // http_cancelled

void fake_server_init(struct model *m, const char *id); // SERVER_READY, one model; takes it
void fake_server_finish(void);

// Runs work and, if that succeeded, start. The engine has not stepped yet.
void exchange_begin(struct exchange *x, const struct http_route *routes, const char *path, const char *body,
                    size_t body_len);
void exchange_run(struct exchange *x); // steps the engine and delivers events until the answer is whole
void exchange_end(struct exchange *x); // route->end; gone when the answer is not whole
void fake_deliver(void);               // one engine step, its events dispatched

// begin, run, end; the answer as JSON (a new reference; NULL for a stream). x stays readable until exchange_free.
json_t *exchange_json(struct exchange *x, const struct http_route *routes, const char *path, const char *body);
void exchange_free(struct exchange *x);
