// SPDX-License-Identifier: MIT
// The field tables of /tokenize and /detokenize (api_tokenize.c), for /openapi.json.
#pragma once

#include "server/fields.h"

extern const struct field_table tokenize_table, detokenize_table;
