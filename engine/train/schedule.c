// SPDX-License-Identifier: MIT
// Learning-rate schedules: pure functions of the update's number, so a resumed run needs nothing but that number.
#include "engine/train/optimizer.h"

#include <math.h>

double schedule_rate(const struct schedule *s, uint64_t step) {
    if (step <= s->warmup) return s->lr * (double)step / (double)s->warmup;
    if (s->kind == SCHEDULE_CONSTANT || s->total <= s->warmup) return s->lr;
    const double way = (double)(step - 1 - s->warmup) / (double)(s->total - s->warmup), at = fmin(way, 1.0);
    const double left = s->kind == SCHEDULE_LINEAR ? 1.0 - at : 0.5 * (1.0 + cos(acos(-1.0) * at));
    return s->min_lr + (s->lr - s->min_lr) * left;
}
