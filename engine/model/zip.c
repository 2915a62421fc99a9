// SPDX-License-Identifier: MIT
// Zip archives of stored entries, zip64 included, read from memory (PKWARE APPNOTE 6.3, sections 4.3 to 4.5).
//
// Invariant: an entry is listed only when its name and its bytes lie inside the file. Sizes are the central directory's; the local
// header only says where the bytes begin. Pure functions; any thread.
#include "engine/model/pth.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { END_BYTES = 22, LOCATOR_BYTES = 20, END64_BYTES = 56, CENTRAL_BYTES = 46, LOCAL_BYTES = 30, ENTRIES_MAX = 1 << 18 };
enum { SIG_LOCAL = 0x04034b50, SIG_CENTRAL = 0x02014b50, SIG_END = 0x06054b50, SIG_END64 = 0x06064b50, SIG_LOCATOR = 0x07064b50 };

static uint64_t load(const unsigned char *p, size_t n) {
    uint64_t v = 0;
    for (size_t i = n; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static bool damaged(struct err *err, const char *what) {
    (void)err_set(err, ERR_CORRUPT, "the zip archive is damaged: %s", what);
    return false;
}

struct directory {
    uint64_t offset, size, n_entries;
};

static bool directory_find(const unsigned char *data, size_t len, struct directory *d, struct err *err) {
    const size_t lowest = len > END_BYTES + 65535 ? len - END_BYTES - 65535 : 0; // a comment may follow
    size_t at = len >= END_BYTES ? len - END_BYTES : 0;
    while (at > lowest && load(data + at, 4) != SIG_END) at--;
    if (len < END_BYTES || load(data + at, 4) != SIG_END) return damaged(err, "it has no end record, as if cut off");
    *d = (struct directory){.n_entries = load(data + at + 10, 2), .size = load(data + at + 12, 4), .offset = load(data + at + 16, 4)};
    if (at >= LOCATOR_BYTES && load(data + at - LOCATOR_BYTES, 4) == SIG_LOCATOR) {
        const uint64_t end64 = load(data + at - LOCATOR_BYTES + 8, 8);
        if (end64 > len || len - end64 < END64_BYTES || load(data + end64, 4) != SIG_END64) return damaged(err, "its zip64 record is not where it should be");
        *d = (struct directory){.n_entries = load(data + end64 + 32, 8), .size = load(data + end64 + 40, 8), .offset = load(data + end64 + 48, 8)};
    }
    if (d->offset > len || d->size > len - d->offset || d->n_entries > d->size / CENTRAL_BYTES)
        return damaged(err, "its directory lies outside the file");
    if (d->n_entries > ENTRIES_MAX) return err_set(err, ERR_TOO_LARGE, "the zip archive has more than %d entries", ENTRIES_MAX);
    return true;
}

struct place { // of an entry, as the central directory has it
    uint64_t size, packed, offset;
};

// The zip64 extra field holds those of the three that do not fit in 32 bits, in this order.
static bool place_extend(struct place *p, const unsigned char *extra, size_t len) {
    while (len >= 4) {
        const size_t id = load(extra, 2), n = load(extra + 2, 2);
        if (n > len - 4) return false;
        const unsigned char *at = extra + 4, *end = at + n;
        uint64_t *const values[] = {&p->size, &p->packed, &p->offset};
        for (size_t i = 0; id == 1 && i < ARRAY_LEN(values); i++) {
            if (*values[i] != UINT32_MAX) continue;
            if (end - at < 8) return false;
            *values[i] = load(at, 8);
            at += 8;
        }
        extra += 4 + n, len -= 4 + n;
    }
    return true;
}

// One central record at *at, which moves behind it.
static bool entry_read(const unsigned char *data, size_t len, const unsigned char **at, const unsigned char *end, struct zip_entry *e, struct err *err) {
    const unsigned char *c = *at;
    if (end - c < CENTRAL_BYTES || load(c, 4) != SIG_CENTRAL) return damaged(err, "a directory record cannot be read");
    const size_t name = load(c + 28, 2), extra = load(c + 30, 2), comment = load(c + 32, 2);
    if ((size_t)(end - c) - CENTRAL_BYTES < name + extra + comment) return damaged(err, "a directory record reaches outside");
    struct place p = {.packed = load(c + 20, 4), .size = load(c + 24, 4), .offset = load(c + 42, 4)};
    *e = (struct zip_entry){.name = (const char *)c + CENTRAL_BYTES, .name_len = name};
    const int shown = (int)MIN(name, (size_t)100);
    if (load(c + 8, 2) & 1) return err_set(err, ERR_UNSUPPORTED, "the archive's entry %.*s is encrypted", shown, e->name);
    if (load(c + 10, 2) != 0) return err_set(err, ERR_UNSUPPORTED, "the archive's entry %.*s is compressed, which torch.save does not do", shown, e->name);
    if (!place_extend(&p, c + CENTRAL_BYTES + name, extra) || p.size != p.packed) return damaged(err, "an entry's sizes cannot be read");
    if (p.offset > len || len - p.offset < LOCAL_BYTES || load(data + p.offset, 4) != SIG_LOCAL) return damaged(err, "an entry is not where it should be");
    const size_t skip = LOCAL_BYTES + load(data + p.offset + 26, 2) + load(data + p.offset + 28, 2), left = len - p.offset;
    if (skip > left || p.size > left - skip) return damaged(err, "an entry reaches outside the file");
    e->data = data + p.offset + skip, e->len = p.size;
    *at = c + CENTRAL_BYTES + name + extra + comment;
    return true;
}

static int names_compare(const char *a, size_t a_len, const char *b, size_t b_len) {
    const int order = memcmp(a, b, MIN(a_len, b_len));
    return order ? order : (a_len > b_len) - (a_len < b_len);
}

static int compare_entries(const void *a, const void *b) {
    const struct zip_entry *x = a, *y = b;
    return names_compare(x->name, x->name_len, y->name, y->name_len);
}

bool zip_open(struct zip *z, const unsigned char *data, size_t len, struct err *err) {
    struct directory d;
    if (!directory_find(data, len, &d, err)) return false;
    struct zip_entry *entries = mem_try_alloc(d.n_entries, sizeof(*entries), "the archive's directory", err);
    if (!entries) return false;
    const unsigned char *at = data + d.offset, *end = at + d.size;
    bool ok = true;
    for (size_t i = 0; ok && i < d.n_entries; i++) ok = entry_read(data, len, &at, end, &entries[i], err);
    if (ok) qsort(entries, d.n_entries, sizeof(*entries), compare_entries);
    for (size_t i = 1; ok && i < d.n_entries; i++)
        if (compare_entries(&entries[i - 1], &entries[i]) == 0) ok = damaged(err, "it has an entry twice");
    if (ok) *z = (struct zip){entries, d.n_entries};
    else free(entries);
    return ok;
}

void zip_close(struct zip *z) {
    free(z->entries);
    *z = (struct zip){0};
}

const struct zip_entry *zip_find(const struct zip *z, const char *name, size_t len) {
    const struct zip_entry wanted = {.name = name, .name_len = len};
    return bsearch(&wanted, z->entries, z->n_entries, sizeof(*z->entries), compare_entries);
}
