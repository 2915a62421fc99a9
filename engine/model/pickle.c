// SPDX-License-Identifier: MIT
// Python's pickle (protocols 2 to 5), as far as torch.save uses it for state dicts (Lib/pickletools.py lists the opcodes).
//
// A pickle is a program for a stack machine that may call any Python function. This machine has no such call: GLOBAL accepts the
// names of one table, REDUCE builds a tensor, a parameter or an ordered dict from them, and everything else is refused by name.
// Invariants: (1) no operand is read past the end; (2) values, items and stack are bounded, whatever the program does; (3) values may
// refer to each other in circles: who walks them bounds the depth. Pure functions; any thread.
#include "engine/model/pth.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { PICKLE_MAX = 16 << 20, VALUES_MAX = 1 << 18, STACK_MAX = 1 << 16, MEMO_MAX = 1 << 20 };

struct pickle_global {
    const char *module, *name;
    enum { CALL_NONE, CALL_DICT, CALL_TENSOR, CALL_PARAMETER } call;
};
static const struct pickle_global globals[] = {
    {"collections", "OrderedDict", CALL_DICT},
    {"torch._utils", "_rebuild_tensor_v2", CALL_TENSOR},
    {"torch._utils", "_rebuild_parameter", CALL_PARAMETER},
    {"torch", "FloatStorage"},
    {"torch", "HalfStorage"},
    {"torch", "BFloat16Storage"},
    {"torch", "DoubleStorage"},
    {"torch", "LongStorage"},
    {"torch", "IntStorage"},
    {"torch", "ShortStorage"},
    {"torch", "CharStorage"},
    {"torch", "ByteStorage"},
    {"torch", "BoolStorage"},
};

struct machine {
    struct arena *arena;
    const unsigned char *at, *end;
    struct pickle_value **stack; // NULL: a mark
    size_t n_stack, stack_cap;
    struct pickle_value **memo; // NULL: never stored
    size_t n_memo, memo_cap;    // slots in use, from 0
    size_t next_memo;           // MEMOIZE's
    size_t n_values;            // values and items made
    struct err *err;
};

static bool damaged(struct machine *m, const char *what) {
    (void)err_set(m->err, ERR_CORRUPT, "the file's pickle is damaged: %s", what);
    return false;
}

// ---- values

static bool count_up(struct machine *m) {
    if (m->n_values++ < VALUES_MAX) return true;
    return err_set(m->err, ERR_TOO_LARGE, "the file's pickle holds more than %d values", VALUES_MAX);
}

static struct pickle_value *value_new(struct machine *m, enum pickle_kind kind) {
    if (!count_up(m)) return NULL;
    struct pickle_value *v = arena_alloc(m->arena, 1, sizeof(*v));
    v->kind = kind;
    return v;
}

static bool push(struct machine *m, struct pickle_value *v) {
    if (m->n_stack == STACK_MAX) return damaged(m, "its stack grows without end");
    mem_grow(&m->stack, &m->stack_cap, m->n_stack + 1);
    m->stack[m->n_stack++] = v;
    return true;
}

static bool push_new(struct machine *m, enum pickle_kind kind, int64_t integer) {
    struct pickle_value *v = value_new(m, kind);
    if (v) v->integer = integer;
    return v && push(m, v);
}

static struct pickle_value *pop(struct machine *m) {
    if (m->n_stack && m->stack[m->n_stack - 1]) return m->stack[--m->n_stack];
    (void)damaged(m, "it takes from an empty stack");
    return NULL;
}

static bool item_add(struct machine *m, struct pickle_value *to, struct pickle_value *key, struct pickle_value *value) {
    if (!count_up(m)) return false;
    struct pickle_item *i = arena_alloc(m->arena, 1, sizeof(*i));
    *i = (struct pickle_item){key, value, NULL};
    if (to->items.last) to->items.last->next = i;
    else to->items.first = i;
    to->items.last = i;
    to->items.n++;
    return true;
}

// Moves the values above the topmost mark into `to`, in pairs for a dict, and removes the mark.
static bool items_take(struct machine *m, size_t mark, struct pickle_value *to) {
    const size_t step = to->kind == PICKLE_DICT ? 2 : 1, n = m->n_stack - mark;
    if (n % step) return damaged(m, "a key has no value");
    for (size_t i = mark; i < m->n_stack; i += step)
        if (!item_add(m, to, step == 2 ? m->stack[i] : NULL, m->stack[i + step - 1])) return false;
    m->n_stack = mark;
    return true;
}

static bool mark_find(struct machine *m, size_t *mark) {
    size_t at = m->n_stack;
    while (at > 0 && m->stack[at - 1]) at--;
    if (at == 0) return damaged(m, "a mark is missing");
    *mark = at;
    return true;
}

static bool push_marked_tuple(struct machine *m) {
    size_t mark;
    struct pickle_value *v = value_new(m, PICKLE_TUPLE);
    if (!v || !mark_find(m, &mark) || !items_take(m, mark, v)) return false;
    m->n_stack--;
    return push(m, v);
}

static bool push_tuple(struct machine *m, size_t n) {
    struct pickle_value *v = value_new(m, PICKLE_TUPLE);
    if (!v) return false;
    if (m->n_stack < n) return damaged(m, "it takes from an empty stack");
    for (size_t i = 0; i < n; i++)
        if (!m->stack[m->n_stack - 1 - i]) return damaged(m, "a tuple holds a mark");
    return items_take(m, m->n_stack - n, v) && push(m, v);
}

// APPENDS and SETITEMS (marked), APPEND and SETITEM: into the container below.
static bool fill(struct machine *m, enum pickle_kind kind, bool marked) {
    const size_t n = kind == PICKLE_DICT ? 2 : 1;
    size_t mark = m->n_stack - n;
    if (marked ? !mark_find(m, &mark) : m->n_stack < n + 1) return marked ? false : damaged(m, "it takes from an empty stack");
    const size_t below = marked ? mark - 1 : mark; // marked: stack[mark - 1] is the mark
    struct pickle_value *to = below ? m->stack[below - 1] : NULL;
    if (!to || to->kind != kind) return damaged(m, "items go into something that holds none");
    for (size_t i = mark; i < m->n_stack; i++)
        if (!m->stack[i]) return damaged(m, "an item is a mark");
    if (!items_take(m, mark, to)) return false;
    m->n_stack = below;
    return true;
}

static const struct pickle_value *item_at(const struct pickle_value *tuple, size_t i) {
    const struct pickle_item *item = tuple->items.first;
    while (item && i--) item = item->next;
    return item ? item->value : NULL;
}

static bool is(const struct pickle_value *v, enum pickle_kind kind) { return v && v->kind == kind; }

static bool text_is(const struct pickle_value *v, const char *s) {
    return is(v, PICKLE_TEXT) && v->text.len == strlen(s) && memcmp(v->text.s, s, v->text.len) == 0;
}

const struct pickle_value *pickle_get(const struct pickle_value *dict, const char *key) {
    const struct pickle_value *found = NULL; // the last of equal keys counts, as in Python
    if (is(dict, PICKLE_DICT))
        for (const struct pickle_item *i = dict->items.first; i; i = i->next)
            if (text_is(i->key, key)) found = i->value;
    return found;
}

// ---- names and calls

static bool push_global(struct machine *m, const char *module, size_t module_len, const char *name, size_t name_len) {
    for (size_t i = 0; i < ARRAY_LEN(globals); i++) {
        const struct pickle_global *g = &globals[i];
        if (strlen(g->module) != module_len || memcmp(g->module, module, module_len) != 0 || strlen(g->name) != name_len ||
            memcmp(g->name, name, name_len) != 0)
            continue;
        struct pickle_value *v = value_new(m, PICKLE_GLOBAL);
        if (v) v->global = g;
        return v && push(m, v);
    }
    return err_set(m->err, ERR_UNSUPPORTED, "loading the file would execute %.*s.%.*s, which no state dict needs: refused, nothing was executed",
                   (int)MIN(module_len, (size_t)80), module, (int)MIN(name_len, (size_t)80), name);
}

static bool stack_global(struct machine *m) {
    const struct pickle_value *name = pop(m), *module = name ? pop(m) : NULL;
    if (!module) return false;
    if (!is(name, PICKLE_TEXT) || !is(module, PICKLE_TEXT)) return damaged(m, "a name is no text");
    return push_global(m, module->text.s, module->text.len, name->text.s, name->text.len);
}

static bool sizes_read(const struct pickle_value *tuple, size_t out[PICKLE_DIMS]) {
    size_t n = 0;
    for (const struct pickle_item *i = tuple->items.first; i; i = i->next) {
        if (!is(i->value, PICKLE_INT) || i->value->integer < 0) return false;
        out[n++] = (size_t)i->value->integer;
    }
    return true;
}

// _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, backward_hooks[, metadata])
static bool tensor_build(struct machine *m, const struct pickle_value *args) {
    const struct pickle_value *storage = item_at(args, 0), *offset = item_at(args, 1), *size = item_at(args, 2), *stride = item_at(args, 3);
    if (!is(storage, PICKLE_STORAGE) || !is(offset, PICKLE_INT) || offset->integer < 0 || !is(size, PICKLE_TUPLE) || !is(stride, PICKLE_TUPLE) ||
        size->items.n != stride->items.n)
        return damaged(m, "a tensor's parts are not storage, offset, size and stride");
    if (size->items.n > PICKLE_DIMS) return err_set(m->err, ERR_UNSUPPORTED, "the file has a tensor of %zu dimensions", size->items.n);
    struct pickle_value *v = value_new(m, PICKLE_TENSOR);
    if (!v) return false;
    v->tensor.storage = storage, v->tensor.offset = (size_t)offset->integer, v->tensor.n_dims = size->items.n;
    if (!sizes_read(size, v->tensor.shape) || !sizes_read(stride, v->tensor.stride)) return damaged(m, "a tensor's size is no number");
    return push(m, v);
}

static bool reduce(struct machine *m) {
    struct pickle_value *args = pop(m), *function = args ? pop(m) : NULL;
    if (!function) return false;
    if (!is(function, PICKLE_GLOBAL) || !is(args, PICKLE_TUPLE)) return damaged(m, "it calls something that is no function");
    switch (function->global->call) {
    case CALL_TENSOR: return tensor_build(m, args);
    case CALL_DICT:
        if (args->items.n == 0) return push_new(m, PICKLE_DICT, 0);
        break;
    case CALL_PARAMETER:
        if (args->items.n && is(args->items.first->value, PICKLE_TENSOR)) return push(m, (struct pickle_value *)(uintptr_t)args->items.first->value);
        break;
    case CALL_NONE: break;
    }
    return err_set(m->err, ERR_UNSUPPORTED, "the file's pickle calls %s.%s in a way that no state dict does", function->global->module, function->global->name);
}

// A persistent id: ('storage', torch.FloatStorage, key, location, number of elements).
static bool storage_build(struct machine *m) {
    const struct pickle_value *id = pop(m);
    if (!id) return false;
    const bool tuple = is(id, PICKLE_TUPLE);
    const struct pickle_value *type = tuple ? item_at(id, 1) : NULL, *key = tuple ? item_at(id, 2) : NULL;
    if (!tuple || !text_is(item_at(id, 0), "storage") || !is(type, PICKLE_GLOBAL) || strcmp(type->global->module, "torch") != 0 ||
        !is(key, PICKLE_TEXT))
        return damaged(m, "a persistent id is no storage");
    struct pickle_value *v = value_new(m, PICKLE_STORAGE);
    if (!v) return false;
    v->storage.key = key, v->storage.type = type->global->name;
    return push(m, v);
}

// ---- operands

static bool take(struct machine *m, size_t n, const unsigned char **out) {
    if ((size_t)(m->end - m->at) < n) return damaged(m, "it ends within an operand");
    *out = m->at;
    m->at += n;
    return true;
}

static bool take_number(struct machine *m, size_t n, uint64_t *out) { // little-endian
    const unsigned char *p;
    if (!take(m, n, &p)) return false;
    *out = 0;
    for (size_t i = n; i-- > 0;) *out = *out << 8 | p[i];
    return true;
}

static bool take_line(struct machine *m, const char **s, size_t *len) {
    const unsigned char *end = memchr(m->at, '\n', (size_t)(m->end - m->at));
    if (!end) return damaged(m, "it ends within a name");
    *s = (const char *)m->at, *len = (size_t)(end - m->at);
    m->at = end + 1;
    return true;
}

static bool push_text(struct machine *m, size_t length_bytes, enum pickle_kind kind) {
    uint64_t len;
    const unsigned char *s;
    if (!take_number(m, length_bytes, &len) || !take(m, len, &s)) return false;
    struct pickle_value *v = value_new(m, kind);
    if (v && kind == PICKLE_TEXT) v->text.s = (const char *)s, v->text.len = len;
    return v && push(m, v);
}

static bool push_number(struct machine *m, size_t n) { // BININT is signed, BININT1 and BININT2 are not
    uint64_t v;
    return take_number(m, n, &v) && push_new(m, PICKLE_INT, n == 4 ? (int32_t)v : (int64_t)v);
}

static bool push_long(struct machine *m, size_t length_bytes) { // two's complement; past 64 bits: 0
    uint64_t len, v = 0;
    const unsigned char *p;
    if (!take_number(m, length_bytes, &len) || !take(m, len, &p)) return false;
    if (len > 0 && len <= 8) {
        v = p[len - 1] & 128 ? UINT64_MAX : 0;
        for (size_t i = len; i-- > 0;) v = v << 8 | p[i];
    }
    return push_new(m, PICKLE_INT, (int64_t)v);
}

static bool memo_put(struct machine *m, uint64_t slot) {
    struct pickle_value *v = m->n_stack ? m->stack[m->n_stack - 1] : NULL;
    if (!v || slot >= MEMO_MAX) return damaged(m, "it remembers nothing, or in a place too far");
    mem_grow(&m->memo, &m->memo_cap, slot + 1);
    while (m->n_memo <= slot) m->memo[m->n_memo++] = NULL;
    m->memo[slot] = v;
    return true;
}

static bool memo_get(struct machine *m, size_t n) {
    uint64_t slot;
    if (!take_number(m, n, &slot)) return false;
    if (slot >= m->n_memo || !m->memo[slot]) return damaged(m, "it recalls what it never remembered");
    return push(m, m->memo[slot]);
}

static bool global_line(struct machine *m) {
    const char *module, *name;
    size_t module_len, name_len;
    return take_line(m, &module, &module_len) && take_line(m, &name, &name_len) && push_global(m, module, module_len, name, name_len);
}

// BUILD sets attributes: of a state dict (OrderedDict) they are its "_metadata", which says nothing about weights.
static bool build(struct machine *m) {
    if (!pop(m)) return false;
    const struct pickle_value *to = m->n_stack ? m->stack[m->n_stack - 1] : NULL;
    return is(to, PICKLE_DICT) || damaged(m, "it sets attributes of something that has none");
}

static bool step(struct machine *m, unsigned char op) {
    uint64_t n;
    const unsigned char *p;
    switch (op) {
    case 0x80: return take(m, 1, &p);                                  // PROTO
    case 0x95: return take(m, 8, &p);                                  // FRAME
    case '(': return push(m, NULL);                                    // MARK
    case '0': return pop(m) != NULL;                                   // POP
    case 'N': return push_new(m, PICKLE_NONE, 0);                      // NONE
    case 0x88: case 0x89: return push_new(m, PICKLE_NONE, 0);          // NEWTRUE, NEWFALSE
    case 'J': return push_number(m, 4);                                // BININT
    case 'K': return push_number(m, 1);                                // BININT1
    case 'M': return push_number(m, 2);                                // BININT2
    case 0x8a: return push_long(m, 1);                                 // LONG1
    case 0x8b: return push_long(m, 4);                                 // LONG4
    case 'G': return take(m, 8, &p) && push_new(m, PICKLE_NONE, 0);    // BINFLOAT
    case 'X': return push_text(m, 4, PICKLE_TEXT);                     // BINUNICODE
    case 0x8c: return push_text(m, 1, PICKLE_TEXT);                    // SHORT_BINUNICODE
    case 0x8d: return push_text(m, 8, PICKLE_TEXT);                    // BINUNICODE8
    case 'C': return push_text(m, 1, PICKLE_NONE);                     // SHORT_BINBYTES
    case 'B': return push_text(m, 4, PICKLE_NONE);                     // BINBYTES
    case ']': return push_new(m, PICKLE_LIST, 0);                      // EMPTY_LIST
    case '}': return push_new(m, PICKLE_DICT, 0);                      // EMPTY_DICT
    case ')': return push_new(m, PICKLE_TUPLE, 0);                     // EMPTY_TUPLE
    case 0x85: case 0x86: case 0x87: return push_tuple(m, op - 0x84u); // TUPLE1, TUPLE2, TUPLE3
    case 't': return push_marked_tuple(m);                             // TUPLE
    case 'a': return fill(m, PICKLE_LIST, false);                      // APPEND
    case 'e': return fill(m, PICKLE_LIST, true);                       // APPENDS
    case 's': return fill(m, PICKLE_DICT, false);                      // SETITEM
    case 'u': return fill(m, PICKLE_DICT, true);                       // SETITEMS
    case 'q': return take_number(m, 1, &n) && memo_put(m, n);          // BINPUT
    case 'r': return take_number(m, 4, &n) && memo_put(m, n);          // LONG_BINPUT
    case 0x94: return memo_put(m, m->next_memo++);                     // MEMOIZE
    case 'h': return memo_get(m, 1);                                   // BINGET
    case 'j': return memo_get(m, 4);                                   // LONG_BINGET
    case 'c': return global_line(m);                                   // GLOBAL
    case 0x93: return stack_global(m);                                 // STACK_GLOBAL
    case 'R': return reduce(m);                                        // REDUCE
    case 'Q': return storage_build(m);                                 // BINPERSID
    case 'b': return build(m);                                         // BUILD
    }
    return err_set(m->err, ERR_UNSUPPORTED, "the file's pickle has the opcode 0x%02x, which no state dict needs: refused, nothing was executed", op);
}

const struct pickle_value *pickle_read(struct arena *a, const unsigned char *data, size_t len, struct err *err) {
    struct machine m = {.arena = a, .at = data, .end = data + len, .err = err};
    if (len > PICKLE_MAX) {
        (void)err_set(err, ERR_TOO_LARGE, "the file's pickle has %zu bytes, more than %d", len, PICKLE_MAX);
        return NULL;
    }
    bool ok = true, stopped = false;
    while (ok && !stopped) {
        const unsigned char *op;
        ok = take(&m, 1, &op);
        stopped = ok && *op == '.';
        ok = ok && (stopped || step(&m, *op));
    }
    const struct pickle_value *v = ok ? pop(&m) : NULL;
    free(m.stack);
    free(m.memo);
    return v;
}
