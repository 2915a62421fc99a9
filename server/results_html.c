// SPDX-License-Identifier: MIT
// See results_html.h.
#include "server/results_html.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char head[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    "<title>Results</title>\n<style>\n"
    ":root{color-scheme:light dark;--ink:#1d2430;--soft:#5d6878;--paper:#f6f7f9;--card:#fff;--line:#dfe3e9;--good:#1f7a4d;--plain:#8a5a00;--tint:#eef6f1}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--paper:#14171c;--card:#1c2128;--line:#303843;"
    "--good:#5fc491;--plain:#d9a54a;--tint:#1d2b25}}\n"
    "body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,sans-serif}\n"
    "main{max-width:60rem;margin:0 auto;padding:2rem 1rem 4rem}\nh1{font-size:1.5rem;margin:0 0 .3rem}\n"
    ".about{color:var(--soft);margin:0 0 1.5rem}\n.sums{display:flex;flex-wrap:wrap;gap:.75rem;margin:0 0 2rem;padding:0;list-style:none}\n"
    ".sums li{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.6rem 1rem;min-width:7rem}\n"
    ".sums b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}\n.sums span{color:var(--soft);font-size:.85rem}\n"
    "article{background:var(--card);border:1px solid var(--line);border-radius:.7rem;padding:1rem 1.25rem;margin:0 0 1rem}\n"
    "article header{display:flex;justify-content:space-between;gap:1rem;color:var(--soft);font-size:.85rem;font-variant-numeric:tabular-nums}\n"
    "dl{margin:.5rem 0 0;display:grid;grid-template-columns:8rem 1fr;gap:.45rem 1rem}\n"
    "dt{color:var(--soft)}\ndd{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}\n"
    ".tuned{background:var(--tint);border-radius:.35rem;padding:0 .4rem;margin:0 -.4rem}\n"
    ".exact{color:var(--good)}\n.empty{color:var(--plain);font-style:italic}\n"
    "@media(max-width:40rem){dl{grid-template-columns:1fr;gap:.1rem}dd{margin-bottom:.5rem}}\n"
    "</style>\n</head>\n<body>\n<main>\n";

static void add_text(struct buf *out, const char *s) {
    for (; *s; s++) {
        switch (*s) {
        case '<': buf_add_str(out, "&lt;"); break;
        case '>': buf_add_str(out, "&gt;"); break;
        case '&': buf_add_str(out, "&amp;"); break;
        case '"': buf_add_str(out, "&quot;"); break;
        default: buf_add_byte(out, (unsigned char)*s);
        }
    }
}

static void add_row(struct buf *out, const char *name, const char *text, const char *class) {
    buf_printf(out, "<dt>%s</dt><dd class=\"%s\">", name, class);
    if (*text) add_text(out, text);
    else buf_add_str(out, "<span class=\"empty\">nothing</span>");
    buf_add_str(out, "</dd>\n");
}

static void add_sum(struct buf *out, const char *name, double value, const char *unit) {
    buf_printf(out, "<li><b>%.1f%s</b><span>%s</span></li>\n", value, unit, name);
}

static void add_card(struct buf *out, const struct result_card *c, size_t number) {
    buf_printf(out, "<article>\n<header><span>%zu</span><span>", number);
    if (c->exact) buf_add_str(out, "<span class=\"exact\">exact</span> \xC2\xB7 ");
    if (!isnan(c->judge)) buf_printf(out, "judge %.0f \xC2\xB7 ", c->judge);
    buf_printf(out, "ROUGE-L %.2f \xC2\xB7 F1 %.2f</span></header>\n<dl>\n", c->rouge_l, c->token_f1);
    add_row(out, "Instruction", c->instruction, "");
    if (*c->input) add_row(out, "Input", c->input, "");
    add_row(out, "Correct", c->reference, "");
    if (c->base) add_row(out, "Base", c->base, "");
    add_row(out, c->base ? "Tuned" : "Answer", c->answer, "tuned");
    buf_add_str(out, "</dl>\n</article>\n");
}

void results_html(const struct results_page *p, struct buf *out) {
    buf_add_str(out, head);
    buf_add_str(out, "<h1>");
    add_text(out, p->model);
    buf_printf(out, "</h1>\n<p class=\"about\">%zu answers on ", p->n);
    add_text(out, p->data);
    if (p->base) {
        buf_add_str(out, ", beside those of ");
        add_text(out, p->base);
    }
    buf_add_str(out, "</p>\n<ul class=\"sums\">\n");
    add_sum(out, "exact match", 100 * p->exact_match, " %");
    add_sum(out, "token F1", 100 * p->token_f1, " %");
    add_sum(out, "ROUGE-L", 100 * p->rouge_l, " %");
    if (!isnan(p->judge)) add_sum(out, "judge, of 100", p->judge, "");
    buf_add_str(out, "</ul>\n");
    for (size_t i = 0; i < p->n; i++) add_card(out, &p->cards[i], i + 1);
    buf_add_str(out, "</main>\n</body>\n</html>\n");
}

static int by_number(double a, double b) { return (a > b) - (a < b); }

static int by_badness(const void *one, const void *other) {
    const struct result_card *a = one, *b = other;
    int order = by_number(isnan(a->judge) ? -1 : a->judge, isnan(b->judge) ? -1 : b->judge);
    if (!order) order = by_number(a->rouge_l, b->rouge_l);
    if (!order) order = by_number(a->token_f1, b->token_f1);
    if (!order) order = by_number(a->exact, b->exact);
    return order ? order : by_number((double)a->row, (double)b->row);
}

void results_sort(struct results_page *p) { qsort(p->cards, p->n, sizeof *p->cards, by_badness); }

static void put_text(struct buf *out, const char *name, const char *text) {
    buf_printf(out, "\"%s\":", name);
    if (text) buf_add_json_string(out, text, strlen(text));
    else buf_add_str(out, "null");
    buf_add_byte(out, ',');
}

void results_json(const struct results_page *p, struct buf *out) {
    buf_add_byte(out, '{');
    put_text(out, "model", p->model);
    put_text(out, "base", p->base);
    buf_add_str(out, "\"cards\":[");
    for (size_t i = 0; i < p->n; i++) {
        const struct result_card *c = &p->cards[i];
        buf_add_str(out, i ? ",\n{" : "\n{");
        put_text(out, "instruction", c->instruction);
        put_text(out, "input", c->input);
        put_text(out, "prompt", c->prompt);
        put_text(out, "reference", c->reference);
        put_text(out, "base", c->base);
        put_text(out, "answer", c->answer);
        buf_printf(out, "\"rouge_l\":%.9g,\"token_f1\":%.9g,\"exact\":%s,\"judge\":", c->rouge_l, c->token_f1, c->exact ? "true" : "false");
        buf_add_json_number(out, c->judge); // null where there is none
        buf_add_byte(out, '}');
    }
    buf_printf(out, "],\n\"means\":{\"exact_match\":%.9g,\"token_f1\":%.9g,\"rouge_l\":%.9g,\"judge\":", p->exact_match, p->token_f1, p->rouge_l);
    buf_add_json_number(out, p->judge);
    buf_add_byte(out, '}');
    if (p->base)
        buf_printf(out, ",\n\"base_means\":{\"exact_match\":%.9g,\"token_f1\":%.9g,\"rouge_l\":%.9g}", p->before.exact_match, p->before.token_f1,
                   p->before.rouge_l);
    buf_add_str(out, "}\n");
}
