// SPDX-License-Identifier: MIT
// Writing a .safetensors file: tensors by name, no gap between them, the header padded with spaces to a multiple of 8 bytes.
// Format: github.com/huggingface/safetensors, README "Format". Any thread.
#include "engine/model/write_internal.h"

#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static void header_write(const struct tensor_out **list, size_t n, enum dtype type, const char *metadata, struct buf *out) {
    static const char *const names[] = {[DTYPE_F32] = "F32", [DTYPE_F16] = "F16", [DTYPE_BF16] = "BF16"};
    size_t at = 0;
    buf_add_byte(out, '{');
    if (metadata) buf_printf(out, "\"__metadata__\":%s,", metadata);
    for (size_t i = 0; i < n; i++) {
        const struct tensor_out *t = list[i];
        const size_t end = at + tensor_out_bytes(t, type);
        if (i) buf_add_byte(out, ',');
        buf_add_json_string(out, t->name, strlen(t->name));
        buf_printf(out, ":{\"dtype\":\"%s\",\"shape\":[%zu", names[type], t->shape[0]);
        if (t->n_dims == 2) buf_printf(out, ",%zu", t->shape[1]);
        buf_printf(out, "],\"data_offsets\":[%zu,%zu]}", at, end);
        at = end;
    }
    buf_add_byte(out, '}');
    while (out->len % 8) buf_add_byte(out, ' ');
}

bool safetensors_write(const char *path, const struct tensor_out *tensors, size_t n, enum write_type type, const char *metadata,
                       struct err *err) {
    assert(n > 0);
    if (type == WRITE_Q8_0) return err_set(err, ERR_UNSUPPORTED, "safetensors files hold f32, f16 or bf16 here, q8_0 is for GGUF");
    const enum dtype dtype = type == WRITE_F32 ? DTYPE_F32 : type == WRITE_F16 ? DTYPE_F16 : DTYPE_BF16;
    struct file_writer w = {0};
    if (!file_writer_open(&w, path, 0644, err)) return false;
    const struct tensor_out **list = tensors_by_name(tensors, n);
    struct buf header = {0};
    header_write(list, n, dtype, metadata, &header);
    unsigned char len[8];
    for (size_t i = 0; i < 8; i++) len[i] = (unsigned char)((uint64_t)header.len >> (8 * i));
    file_writer_add(&w, len, sizeof(len));
    file_writer_add(&w, header.data, header.len);
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++) ok = tensor_out_write(&w, list[i], dtype, err);
    buf_finish(&header);
    free(list);
    if (ok) return file_writer_finish(&w, err);
    file_writer_abort(&w);
    return false;
}
