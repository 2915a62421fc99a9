// SPDX-License-Identifier: MIT
// What the writers share inside engine/model/: rows of a tensor_out as bytes of a type.
#pragma once

#include "base/file.h"
#include "engine/model/model_write.h"

size_t tensor_out_bytes(const struct tensor_out *t, enum dtype type);
// Adds t's rows, in order, as `type` (f32, f16, bf16; q8_0 where rows are a multiple of 32). A few rows are in memory at a time.
bool tensor_out_write(struct file_writer *w, const struct tensor_out *t, enum dtype type, struct err *err) MUST_CHECK;
void tensor_out_rows(const struct tensor_out *t, size_t row, size_t n_rows, float *out); // from data or fill
const struct tensor_out **tensors_by_name(const struct tensor_out *tensors, size_t n); // freed with free()
