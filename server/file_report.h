// SPDX-License-Identifier: MIT
// GET /v1/files/{id}/report: what training would see of a data file, before a job is made of it. ?model= (tokenizer and context; absent: the first
// served), ?context_length=, ?excess_length=error|truncate|drop as in a job, ?validation_file= (examples it shares with the file).
#pragma once

#include "server/http.h"

bool file_report_work(struct http_request *r); // pool: file and model are found
void file_report_start(struct http_request *r);
void file_report_end(struct http_request *r);
