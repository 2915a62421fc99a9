// SPDX-License-Identifier: MIT
// The one place where an error becomes HTTP: status, OpenAI's type and code, and the error object. Messages come from err_set and
// hold no path, address or key by its rule; errors of the system (I/O, memory) are not quoted at all. Thread: any.
#include "server/http_internal.h"

#include "base/mem.h"

#include <string.h>

static const struct {
    enum err_code code;
    struct api_error api;
} by_err[] = {
    {ERR_INVALID, {400, NULL, "invalid_request"}},   {ERR_CORRUPT, {400, NULL, "invalid_request"}},
    {ERR_UNSUPPORTED, {400, NULL, "unsupported_parameter"}}, {ERR_NOT_FOUND, {404, NULL, "not_found"}},
    {ERR_IO, {500, NULL, "internal_error"}},         {ERR_NO_MEMORY, {503, NULL, "insufficient_memory"}},
    {ERR_TOO_LARGE, {400, NULL, "value_out_of_range"}}, {ERR_BUSY, {503, NULL, "overloaded"}},
    {ERR_NO_SPACE, {507, NULL, "insufficient_storage"}},
};

static const struct {
    int status;
    const char *type, *code; // code: where the err's own does not fit the status
} by_status[] = {
    {400, "invalid_request_error", "invalid_request"},       {401, "invalid_request_error", "invalid_api_key"},
    {403, "permission_error", "forbidden"},                  {404, "invalid_request_error", "not_found"},
    {405, "invalid_request_error", "method_not_allowed"},    {408, "invalid_request_error", "request_timeout"},
    {409, "conflict_error", "conflict"},                     {413, "invalid_request_error", "payload_too_large"},
    {415, "invalid_request_error", "unsupported_media_type"},{417, "invalid_request_error", "expectation_failed"},
    {429, "rate_limit_error", "rate_limit_exceeded"},        {500, "server_error", "internal_error"},
    {501, "server_error", "not_implemented"},                {503, "server_error", "overloaded"},
    {507, "server_error", "insufficient_storage"},
};

struct api_error api_error_of(const struct http_request *r) {
    struct api_error e = {500, NULL, "internal_error"};
    for (size_t i = 0; i < ARRAY_LEN(by_err); i++)
        if (by_err[i].code == r->err.code) e = by_err[i].api;
    bool overruled = r->err_status && r->err_status != e.status;
    if (r->err_status) e.status = r->err_status;
    if (r->err.code == ERR_BUSY && !r->err_status && server_state(r->server) == SERVER_DRAINING) e.code = "shutting_down";
    e.type = e.status >= 500 ? "server_error" : "invalid_request_error";
    for (size_t i = 0; i < ARRAY_LEN(by_status); i++) {
        if (by_status[i].status != e.status) continue;
        e.type = by_status[i].type;
        if (overruled) e.code = by_status[i].code;
    }
    if (r->err_code) e.code = r->err_code;
    return e;
}

void api_error_write(struct buf *out, const struct api_error *e, const char *message, const char *param) {
    // What a 500 would say is about the server's inside; the log has it.
    // So with a full disk's, which names the file; a quota's sentence names none.
    if (e->status == 507 && strchr(message, '/')) message = "The server's disk is full.";
    if (e->status == 500 || !message[0]) message = e->status == 500 ? "The server failed to answer this request." : "The request failed.";
    buf_add_str(out, "{\"error\":{\"message\":");
    buf_add_json_string(out, message, strlen(message));
    buf_printf(out, ",\"type\":\"%s\",\"param\":", e->type);
    if (param && param[0]) buf_add_json_string(out, param, strlen(param));
    else buf_add_str(out, "null");
    buf_printf(out, ",\"code\":\"%s\"}}", e->code);
}
